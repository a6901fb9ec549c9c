"""Runs the stack of ``docker-compose.infrastructure.yml``: what `make up`, `make backup` and their like do.

Not part of the installed package: it works on the folder that holds the compose file.
"""
