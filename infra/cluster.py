"""Who may talk to a Ray cluster: its token, and whether it asks for one.

Ray runs any code that reaches its ports. A cluster without token authentication is refused unless the user says
otherwise. A token is read as Ray reads it, sent to the cluster alone, and never printed.
"""

from __future__ import annotations

import http.client
import os
import stat
import urllib.error
import urllib.request
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

from filters.errors import ClusterError

TIMEOUT_SECONDS = 20.0
HOW_TO_AUTHENTICATE = """Ray's own remedy, on the head and on every node, and then the cluster again:
  ray get-auth-token --generate     # writes ~/.ray/auth_token; then: chmod 600 ~/.ray/auth_token
  export RAY_AUTH_MODE=token        # before `ray start`, with the same token file or RAY_AUTH_TOKEN on each machine"""


def dashboard_url(address: str) -> str:
    """The address of a dashboard, `http://HOST:PORT`; a bare HOST:PORT is taken for one.

    Raises ClusterError for what is none.
    """
    given = address if "://" in address else f"http://{address}"
    host, usable = "", False
    with suppress(ValueError):  # a port that is none, or half an IPv6 address
        parts = urlsplit(given)
        host = parts.hostname or ""
        usable = parts.scheme in ("http", "https") and bool(host) and parts.username is None and parts.port != 0
    if not usable:
        raise ClusterError(
            f"{given.partition('://')[0]}://{host} is no address of a cluster's dashboard. Give --address "
            "http://HOST:8265, or set RAY_API_SERVER_ADDRESS."
        )
    return given.rstrip("/")


def token_file() -> Path:
    """Where Ray looks for a token file."""
    given = os.environ.get("RAY_AUTH_TOKEN_PATH")
    return Path(given).expanduser() if given else Path.home() / ".ray" / "auth_token"


def read_token() -> str | None:
    """The token, from where Ray takes it: RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH, ~/.ray/auth_token; None without one."""
    if given := os.environ.get("RAY_AUTH_TOKEN", "").strip():
        return given
    try:
        return token_file().read_text(encoding="utf-8").strip() or None
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise ClusterError(f"{token_file()}: the cluster's token cannot be read ({type(error).__name__}).") from error


def token_warning() -> str | None:
    """What to say of a token file that others can read; `ray get-auth-token --generate` leaves it to the umask."""
    path = token_file()
    if os.environ.get("RAY_AUTH_TOKEN", "").strip() or not path.is_file():
        return None
    if stat.S_IMODE(path.stat().st_mode) & 0o077:
        return f"{path} can be read by others, and whoever has the token runs code on the cluster: chmod 600 {path}"
    return None


def authorization() -> dict[str, str]:
    """The header that carries the token; empty without one."""
    token = read_token()
    return {} if token is None else {"Authorization": f"Bearer {token}"}


def answers_anyone(url: str) -> bool:
    """True where the dashboard answers a request without a token. Raises ClusterError where it cannot be reached."""
    try:
        with urllib.request.urlopen(f"{url}/api/version", timeout=TIMEOUT_SECONDS) as answer:
            return bool(answer.status == 200)
    except urllib.error.HTTPError as error:
        if error.code in (401, 403):
            return False
        raise ClusterError(f"{url}: HTTP {error.code} for /api/version; is this a Ray dashboard?") from error
    except (OSError, http.client.HTTPException) as error:
        # An HTTPException where something else than HTTP answers: the port of the GCS, or of a worker.
        raise ClusterError(
            f"{url}: no Ray dashboard answers there ({error}). Check --address, the cluster, and the way to it "
            "(a tunnel: ssh -L 8265:localhost:8265 HEAD)."
        ) from error


def check_authenticated(address: str, allow: bool) -> str | None:
    """Raise ClusterError for a cluster that asks nobody for a token; with `allow`, return a warning instead."""
    url = dashboard_url(address)
    return judged(url, answers_anyone(url), allow)


def judged(url: str, anyone: bool, allow: bool) -> str | None:
    """What `check_authenticated` says of a dashboard that was asked already."""
    if not anyone:
        return None
    if not allow:
        raise ClusterError(
            f"{url} answers without a token: anyone who reaches it runs code on the cluster. {HOW_TO_AUTHENTICATE}\n"
            "If nobody else can reach it: --allow-unauthenticated-cluster."
        )
    return f"{url} answers without a token: anyone who reaches it runs code on the cluster"
