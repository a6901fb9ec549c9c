"""A session of ``requests`` whose connections end with a deadline."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import socket

    from requests import Session
    from urllib3.connectionpool import HTTPConnectionPool

    from ml_pipeline.config._alert_deadline import Deadline

__all__ = ["session_of"]


def session_of(deadline: Deadline) -> Session:
    """Make a session.

    Args:
        deadline: Opens its connections, those to a proxy too, and cuts them.
    """
    from requests import Session
    from requests.adapters import HTTPAdapter

    pools = _pools(deadline)

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


def _pools(deadline: Deadline) -> dict[str, type[HTTPConnectionPool]]:
    from urllib3.connection import HTTPConnection, HTTPSConnection
    from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

    class Plain(HTTPConnection):
        def _new_conn(self) -> socket.socket:
            return deadline.connect(self.host.strip("[]"), self.port or self.default_port)

    class Encrypted(HTTPSConnection):
        def _new_conn(self) -> socket.socket:
            return deadline.connect(self.host.strip("[]"), self.port or self.default_port)

        def connect(self) -> None:
            super().connect()
            deadline.say(f"encrypted with {getattr(self.sock, 'version', str)()}")

    class PlainPool(HTTPConnectionPool):
        ConnectionCls = Plain

    class EncryptedPool(HTTPSConnectionPool):
        ConnectionCls = Encrypted

    return {"http": PlainPool, "https": EncryptedPool}
