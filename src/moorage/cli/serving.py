"""`serve`: the service in this process, with its owner's way in prepared."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from moorage.cli import local_access
from moorage.cli.failures import CliError, ExitCode
from moorage.cli.local_access import LocalAccess
from moorage.cli.output import Output
from moorage.cli.session import Json, reported

if TYPE_CHECKING:  # the other commands start faster without the service
    from pydantic import ValidationError

    from moorage.settings import Settings


def serve(
    host: Annotated[str | None, typer.Option(envvar="MOORAGE_HOST", show_envvar=True)] = None,
    port: Annotated[
        int | None,
        typer.Option(envvar="MOORAGE_PORT", show_envvar=True, min=0, max=65535, help="0: a free one."),
    ] = None,
    data_dir: Annotated[Path | None, typer.Option(envvar="MOORAGE_DATA_DIR", show_envvar=True)] = None,
    as_json: Json = False,
) -> None:
    """Run the service until Ctrl-C. Models that run go on running, and are taken over at the next start.

    All settings are environment variables; .env.example lists them.
    """
    out = Output(as_json)
    with reported(out):
        settings = _settings(host, port, data_dir)
        announcement = _Announcement(settings, None, out)
        if settings.bootstrap_user is None and not settings.shares_store:
            access = _prepared(settings)
            announcement = _Announcement(settings, access, out)
            settings = _with_owner(settings, access)
        _run(settings, announcement)


def _with_owner(settings: Settings, access: LocalAccess) -> Settings:
    from pydantic import SecretStr

    owner = {"bootstrap_user": access.username, "bootstrap_password": SecretStr(access.password)}
    return settings.model_copy(update=owner)


def _settings(host: str | None, port: int | None, data_dir: Path | None) -> Settings:
    from pydantic import ValidationError

    from moorage.settings import Settings

    given = {"host": host, "port": port, "data_dir": data_dir}
    try:
        return Settings(**{k: v for k, v in given.items() if v is not None})  # type: ignore[arg-type]
    except ValidationError as error:
        raise _wrong_settings(error) from None


def _wrong_settings(error: ValidationError) -> CliError:
    """Without the values, which may be secrets."""
    fields = [
        {
            "field": _variable(str(e["loc"][0])) if e["loc"] else "environment",
            "rule": e["type"],
            "message": e["msg"],
        }
        for e in error.errors()
    ]
    detail = "; ".join(f["message"] for f in fields)
    document = {"title": "A setting is wrong", "detail": detail, "code": "wrong_setting", "errors": fields}
    return CliError({**document, "advice": ".env.example lists all settings."}, ExitCode.USAGE)


def _variable(name: str) -> str:
    """pydantic names a field by its first alias, where it has one."""
    return name if name.isupper() else f"MOORAGE_{name.upper()}"


def _prepared(settings: Settings) -> LocalAccess:
    try:
        return LocalAccess.read_or_create(settings.data_dir)
    except OSError as error:
        raise _cannot_start(f"The data directory {settings.data_dir} cannot be used: {error}.") from error


def _run(settings: Settings, announcement: _Announcement) -> None:
    from moorage.errors import StoreUnusable
    from moorage.server import run

    try:
        run(settings, announcement.begin)
    except StoreUnusable as error:
        raise _cannot_start(f"{error}.") from error
    except OSError as error:
        where = f"{settings.host}:{settings.port}"
        raise _cannot_start(f"It cannot listen on {where}, or use its data: {error}.") from error
    except ValueError as error:  # a provider's setting, named by the provider
        raise _cannot_start(f"{error}.") from error


def _cannot_start(detail: str) -> CliError:
    return CliError(
        {"title": "The service cannot start", "detail": detail, "code": "cannot_start"}, ExitCode.FAILED
    )


@dataclass(slots=True)
class _Announcement:
    """Tells that the service is up, once the owner's key is in its file."""

    settings: Settings
    access: LocalAccess | None
    out: Output

    def begin(self, url: str) -> None:
        """On the event loop, which must go on: the service's own answer is needed."""
        threading.Thread(target=self._tell, args=(url,), daemon=True, name="announcement").start()

    def _tell(self, url: str) -> None:
        file = None
        if self.access is not None:
            try:
                local_access.signed_in(self.access, self._reached_at(url)).save(self.settings.data_dir)
                file = str(self.settings.data_dir / local_access.FILE_NAME)
            except (CliError, OSError) as error:
                self.out.note(Text(f"No key for the command line: {error}. Set MOORAGE_KEY.", "yellow"))
        told = Text.assemble("Moorage answers at ", (url, "bold"), f", its document is at {url}/docs.")
        if file is not None:
            told.append(f"\nThe owner's key is in {file}; `moorage` uses it from this directory.")
        self.out.line({"url": url, "access_file": file}, told)

    def _reached_at(self, url: str) -> str:
        """From this machine: `url` may be what a proxy in front is called."""
        if self.settings.port == 0:
            return url
        host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(self.settings.host, self.settings.host)  # noqa: S104
        host = f"[{host}]" if ":" in host and not host.startswith("[") else host
        return f"http://{host}:{self.settings.port}"
