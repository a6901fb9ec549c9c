"""What is done to Grafana, one thing at a time: the folder, the data sources, the dashboards, and what is left over."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from ml_pipeline.config._grafana_boards import TAG, is_same
from ml_pipeline.config._grafana_client import Answer
from ml_pipeline.errors import DashboardError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from ml_pipeline.config._grafana_client import GrafanaClient

__all__ = ["FOLDER_TITLE", "FOLDER_UID", "Found", "SetupResult", "Steps"]

FOLDER_UID: Final = "ml-pipeline"
FOLDER_TITLE: Final = "ML Pipeline"
KEPT: Final = "kept (provisioned)"

_MESSAGE: Final = "setup_dashboards.py"
_NOT_FOUND: Final = 404
_NOT_ACCEPTABLE: Final = 406
_FORBIDDEN: Final = 403
_CONFLICT: Final = 409
_PRECONDITION: Final = 412
_ATTEMPTS: Final = 2
"""The second is for what somebody else wrote between reading and writing."""

_WRITABLE: Final = ("user", "database", "basicAuth", "basicAuthUser", "withCredentials", "isDefault", "version")
_WOULD: Final = {"created": "would create", "updated": "would update", "deleted": "would delete"}


@dataclass(frozen=True, slots=True)
class SetupResult:
    """What became of one thing.

    Attributes:
        kind: What it is.
        uid: Its name in addresses.
        title: Its name for people.
        action: ``created``, ``updated``, ``unchanged``, ``kept (provisioned)``, ``deleted``, ``failed``; in a dry run
            ``would create`` and so on; of an export ``exported``.
        note: What else there is to know; why, where it failed.
    """

    kind: Literal["folder", "data source", "dashboard"]
    uid: str
    title: str
    action: str
    note: str = ""

    @property
    def failed(self) -> bool:
        """Whether it is not as it should be."""
        return self.action == "failed"


@dataclass(frozen=True, slots=True)
class Found:
    """A dashboard as Grafana has it."""

    board: Mapping[str, Any]
    meta: Mapping[str, Any]

    @property
    def is_provisioned(self) -> bool:
        """Whether it comes from a file of that Grafana and cannot be saved."""
        return bool(self.meta.get("provisioned"))

    @property
    def is_ours(self) -> bool:
        """Whether it stands in our folder with our tag."""
        return self.meta.get("folderUid") == FOLDER_UID and TAG in (self.board.get("tags") or ())


class Steps:
    """The steps; each reads before it writes, so that doing them again changes nothing.

    Args:
        client: The session.
        dry_run: Write nothing and say what would be done.
    """

    def __init__(self, client: GrafanaClient, *, dry_run: bool = False) -> None:
        self._client = client
        self._dry_run = dry_run

    def folder(self) -> SetupResult:
        """Make sure that our folder is there; its title may be changed in Grafana.

        Raises:
            DashboardError: If it cannot be read or made, as with every step.
        """
        answer = self._folder()
        if answer.ok:
            title = str(answer.fields.get("title", FOLDER_TITLE))
            return SetupResult("folder", FOLDER_UID, title, "unchanged")
        if not self._dry_run:
            made = self._client.call("POST", "/folders", {"uid": FOLDER_UID, "title": FOLDER_TITLE})
            if not made.ok and not self._folder().ok:  # it may have been made by somebody else just now
                raise self._folder_refused(made)
        return self._result("folder", FOLDER_UID, FOLDER_TITLE, "created")

    def source(self, wanted: Mapping[str, Any], *, keep_url: bool = False) -> SetupResult:
        """Create or update a data source.

        Args:
            wanted: Its description, with its uid.
            keep_url: Leave the address of one that is there.
        """
        uid, name = wanted["uid"], wanted["name"]
        path = f"/datasources/uid/{uid}"
        for attempt in range(_ATTEMPTS):
            there = self._client.call("GET", path)
            if there.status == _NOT_FOUND:
                return self._new_source(wanted)
            if not there.ok:
                raise _refused(f"reading the data source {name}", there)
            theirs: Mapping[str, Any] = there.fields
            if theirs.get("readOnly"):
                return self._result("data source", uid, str(theirs.get("name", name)), KEPT)
            sent = _merged(wanted, theirs, keep_url=keep_url)
            note = "keeps the address it has" if sent["url"] != wanted["url"] else ""
            if all(theirs.get(key) == value for key, value in sent.items()):
                return SetupResult("data source", uid, sent["name"], "unchanged", note)
            answer = None if self._dry_run else self._client.call("PUT", path, sent)
            if answer is None or answer.ok:
                return self._result("data source", uid, sent["name"], "updated", note)
            if answer.status != _CONFLICT or attempt:
                raise _refused(f"updating the data source {name}", answer)
        raise AssertionError("unreachable")

    def board(self, wanted: Mapping[str, Any]) -> SetupResult:
        """Create or replace a dashboard, never over a version that was not read."""
        uid, title = wanted["uid"], wanted["title"]
        refused: Answer | None = None
        for _ in range(_ATTEMPTS):
            found = self.read(uid)
            if found and found.is_provisioned:
                if is_same(wanted, found.board):
                    return SetupResult("dashboard", uid, title, KEPT)
                raise _provisioned(title)
            if found and found.meta.get("folderUid") == FOLDER_UID and is_same(wanted, found.board):
                return SetupResult("dashboard", uid, title, "unchanged")
            refused = self._send(wanted, found)
            if refused is None:
                return self._result("dashboard", uid, title, "updated" if found else "created", _history(found))
            if refused.status != _PRECONDITION:
                break
        raise _board_refused(title, refused or Answer(0))

    def read(self, uid: str) -> Found | None:
        """Read a dashboard; None where there is none."""
        answer = self._client.call("GET", f"/dashboards/uid/{uid}")
        if answer.status == _NOT_FOUND:
            return None
        if answer.status == _NOT_ACCEPTABLE:
            raise DashboardError(
                f"the dashboard {uid} must be of the classic schema",
                str(answer),
                "it was saved in Grafana's new one: restore an older version there, or delete it, and run this again",
            )
        if not answer.ok or not isinstance(answer.fields.get("dashboard"), dict):
            raise _refused(f"reading the dashboard {uid}", answer)
        return Found(answer.fields["dashboard"], answer.fields.get("meta") or {})

    def left_over(self, keep: Collection[str]) -> Iterator[tuple[str, str]]:
        """Name the dashboards of our folder and tag that are none of *keep*: uid and title."""
        answer = self._client.call("GET", f"/search?type=dash-db&limit=5000&tag={TAG}&folderUIDs={FOLDER_UID}")
        if not answer.ok:
            raise _refused("searching the dashboards", answer)
        for each in answer.items:
            if each.get("folderUid") == FOLDER_UID and each.get("uid") not in keep:
                yield str(each["uid"]), str(each.get("title", ""))

    def delete(self, uid: str, title: str) -> SetupResult | None:
        """Delete a dashboard that is ours; None where a second look finds that it is not."""
        found = self.read(uid)
        if found is None or not found.is_ours:
            return None
        if found.is_provisioned:
            return SetupResult("dashboard", uid, title, KEPT)
        if not self._dry_run:
            answer = self._client.call("DELETE", f"/dashboards/uid/{uid}")
            if not answer.ok and answer.status != _NOT_FOUND:
                raise _refused(f"deleting the dashboard {title}", answer)
        return self._result("dashboard", uid, title, "deleted", "not in the file")

    def _result(
        self, kind: Literal["folder", "data source", "dashboard"], uid: str, title: str, action: str, note: str = ""
    ) -> SetupResult:
        return SetupResult(kind, uid, title, _WOULD.get(action, action) if self._dry_run else action, note)

    def _folder(self) -> Answer:
        answer = self._client.call("GET", f"/folders/{FOLDER_UID}")
        if not answer.ok and answer.status != _NOT_FOUND:
            raise self._folder_refused(answer)
        return answer

    def _folder_refused(self, answer: Answer) -> DashboardError:
        if answer.status in (_CONFLICT, _PRECONDITION):
            rule = f"the folder {FOLDER_TITLE} must have the uid {FOLDER_UID}"
            return DashboardError(rule, str(answer), "rename the other folder of that title in Grafana")
        return _refused(f"the folder {FOLDER_TITLE}", answer)

    def _new_source(self, wanted: Mapping[str, Any]) -> SetupResult:
        # A data source of that name may have another uid; Grafana would say only that there is one.
        uid, name = wanted["uid"], wanted["name"]
        others = self._client.call("GET", "/datasources")
        for each in others.items:
            if each.get("name") == name:
                raise _name_taken(uid, name, f"uid {each.get('uid')}")
        answer = None if self._dry_run else self._client.call("POST", "/datasources", wanted)
        if answer is not None and answer.status == _CONFLICT:
            raise _name_taken(uid, name, str(answer))
        if answer is not None and not answer.ok:
            raise _refused(f"creating the data source {name}", answer)
        return self._result("data source", uid, name, "created")

    def _send(self, wanted: Mapping[str, Any], found: Found | None) -> Answer | None:
        # The refusal, or None where it was saved.
        if self._dry_run:
            return None
        board = {**wanted, "id": None}
        board.pop("version", None)
        if found:
            board["version"] = found.board.get("version")
        body = {"dashboard": board, "folderUid": FOLDER_UID, "overwrite": False, "message": _MESSAGE}
        answer = self._client.call("POST", "/dashboards/db", body)
        return None if answer.ok else answer


def _merged(wanted: Mapping[str, Any], theirs: Mapping[str, Any], *, keep_url: bool) -> dict[str, Any]:
    # What people set beside ours (a name, authentication, headers) stays; ours wins where both say something.
    if theirs.get("type") != wanted["type"]:
        raise DashboardError(
            f"the data source with the uid {wanted['uid']} must be of the type {wanted['type']}",
            str(theirs.get("type")),
            "remove or rename the other one in Grafana",
        )
    kept = {key: theirs[key] for key in _WRITABLE if key in theirs}
    json_data = {**(theirs.get("jsonData") or {}), **wanted["jsonData"]}
    url = theirs["url"] if keep_url and theirs.get("url") else wanted["url"]
    return {**wanted, **kept, "name": theirs.get("name") or wanted["name"], "url": url, "jsonData": json_data}


def _history(found: Found | None) -> str:
    if found is None:
        return ""
    note = f"its previous version {found.board.get('version')} stays in Grafana's version history"
    folder = found.meta.get("folderUid")
    return note if folder == FOLDER_UID else f"moved from the folder {found.meta.get('folderTitle') or 'root'}; {note}"


def _provisioned(title: str) -> DashboardError:
    return DashboardError(
        "a dashboard that Grafana loads from a file of its own cannot be replaced",
        title,
        "take it out of Grafana's provisioning folder, or leave it out with --only",
    )


def _name_taken(uid: str, name: str, given: str) -> DashboardError:
    rule = f"the data source {name} must have the uid {uid}"
    return DashboardError(rule, given, "rename the other data source of that name in Grafana, or give it that uid")


def _board_refused(title: str, answer: Answer) -> DashboardError:
    # Grafana's statuses of one 412: somebody saved it again, another board has its title, or a plugin owns it.
    if "provisioned" in answer.message:
        return _provisioned(title)
    status = answer.fields.get("status")
    if answer.status == _PRECONDITION and status == "name-exists":
        rule = f"the title {title} must be free in the folder {FOLDER_TITLE}"
        return DashboardError(rule, str(answer), "rename the other dashboard in Grafana")
    if answer.status == _PRECONDITION:
        rule = f"nobody must save the dashboard {title} while it is replaced"
        return DashboardError(rule, str(answer), "run this again")
    if answer.status == _NOT_FOUND and "folder" not in answer.message.lower():
        rule = "Grafana must know the route /api/dashboards/db, as versions 10 to 13 do"
        return DashboardError(rule, str(answer), "use one of them")
    return _refused(f"saving the dashboard {title}", answer)


def _refused(what: str, answer: Answer) -> DashboardError:
    if answer.status == _FORBIDDEN:
        remedy = "give the user or token the role Admin (Editor is enough for dashboards alone)"
        return DashboardError(f"{what} must be permitted", str(answer), remedy)
    return DashboardError(f"Grafana refused {what}", str(answer), "mend that and run this again")
