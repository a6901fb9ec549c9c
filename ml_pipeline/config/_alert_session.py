"""A session of ``requests`` whose connections end with a deadline."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import socket

    from requests import Session
    from urllib3.connectionpool import HTTPConnectionPool

    from ml_pipeline.config._alert_deadline import Deadline

__all__ = ["session_of"]


def session_of(deadline: Deadline, target: str) -> Session:
    """Make a session that asks for one target whatever it is told to ask for.

    An address with a secret in it would stand in the exceptions of these libraries, and in what they log: a refused
    header at WARNING, every request at DEBUG. So they are given the host alone, and the line that goes over the wire
    gets the rest.

    Args:
        deadline: Opens its connections, those to a proxy too, and cuts them.
        target: Path and query, in place of the ``/`` of the requests.
    """
    from requests import Session
    from requests.adapters import HTTPAdapter

    pools = _pools(deadline, target)

    class Adapter(HTTPAdapter):
        def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
            super().init_poolmanager(*args, **kwargs)
            self.poolmanager.pool_classes_by_scheme = pools

        def proxy_manager_for(self, proxy: Any, **kwargs: Any) -> Any:
            manager = super().proxy_manager_for(proxy, **kwargs)
            manager.pool_classes_by_scheme = pools
            return manager

    session = Session()
    for scheme in ("http://", "https://"):
        session.mount(scheme, Adapter(max_retries=0))
    return session


def _pools(deadline: Deadline, target: str) -> dict[str, type[HTTPConnectionPool]]:
    from http.client import HTTPResponse

    from urllib3.connection import HTTPConnection, HTTPSConnection
    from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

    class Quiet(HTTPResponse):
        def begin(self) -> None:
            super().begin()
            # What is wrong with the headers would be logged as it came, and may be the target that was asked for.
            self.msg.defects.clear()
            self.msg.set_payload("")

    class Plain(HTTPConnection):
        response_class = Quiet

        def _new_conn(self) -> socket.socket:
            return deadline.connect(self.host.strip("[]"), self.port or self.default_port)

        def putrequest(self, method: str, url: str, *args: Any, **kwargs: Any) -> None:
            super().putrequest(method, url.removesuffix("/") + target, *args, **kwargs)

    class Encrypted(HTTPSConnection, Plain):
        def connect(self) -> None:
            super().connect()
            deadline.say(f"encrypted with {getattr(self.sock, 'version', str)()}")

    class PlainPool(HTTPConnectionPool):
        ConnectionCls = Plain

    class EncryptedPool(HTTPSConnectionPool):
        ConnectionCls = Encrypted

    return {"http": PlainPool, "https": EncryptedPool}
