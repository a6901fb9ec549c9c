# The image of the example pipeline and of the tools that the stack runs once.
# Two stages: pip and what it needs stay in the first; the second has the environment alone, and is nobody's root.
ARG PYTHON_IMAGE=python:3.13-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
WORKDIR /build
RUN python -m venv --without-pip /opt/ml-pipeline
COPY requirements-image.lock ./
RUN python -m pip --disable-pip-version-check --no-cache-dir --python /opt/ml-pipeline/bin/python \
        install --no-deps --require-hashes -r requirements-image.lock
# The build backend is locked with the rest, and used from a folder that is left behind. Before the source: with these
# layers kept, an edit of it is built without a package index.
COPY requirements-build.lock ./
RUN python -m pip --disable-pip-version-check --no-cache-dir install --no-deps --require-hashes \
        --target /build/backend -r requirements-build.lock
COPY pyproject.toml README.md LICENSE ./
COPY ml_pipeline ml_pipeline
RUN PYTHONPATH=/build/backend python -m pip --disable-pip-version-check --no-cache-dir \
        --python /opt/ml-pipeline/bin/python install --no-index --no-deps --no-build-isolation .

FROM ${PYTHON_IMAGE}
LABEL org.opencontainers.image.title="ml-pipeline-observability" org.opencontainers.image.licenses="Apache-2.0"
# Group and user are numbers, so that the log shipper can be given the group; the folders become volumes with this owner.
RUN for folder in /var/log/ml_pipeline /var/lib/ml_pipeline /srv/ml_pipeline; do \
        mkdir -p "$folder" && chown 10000:10000 "$folder" && chmod 0750 "$folder"; done
COPY --from=build /opt/ml-pipeline /opt/ml-pipeline
ENV PATH=/opt/ml-pipeline/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    ML_PIPELINE_LOG_DIR=/var/log/ml_pipeline ML_PIPELINE_DATA_DIR=/var/lib/ml_pipeline \
    ML_PIPELINE_ARTIFACT_DIR=/var/lib/ml_pipeline/artifacts
USER 10000:10000
WORKDIR /srv/ml_pipeline
ENTRYPOINT ["ml-pipeline"]
CMD ["--help"]
