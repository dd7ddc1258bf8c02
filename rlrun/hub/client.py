"""The Hub's client, its failures in one sentence each, and never a token in any of them."""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Iterator

from huggingface_hub import HfApi, get_session, get_token
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
)
from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

from rlrun.errors import RlrunError, UsageError

PATIENCE = 120.0  # seconds without a byte after which a request is given up
_REASONS: dict[int, tuple[type[RlrunError], str, str]] = {
    401: (UsageError, "The Hub does not accept the token", "Log in anew: `hf auth login`, or set HF_TOKEN."),
    403: (UsageError, "The token has no right to do this", "Use a token with the role `write` for this name."),
    404: (
        UsageError,
        "There is no such repository or revision, or it is private",
        "Check the name (user/name), the revision, and the token.",
    ),
    409: (RlrunError, "The Hub reports a conflict with another change", "Try again."),
    429: (RlrunError, "The Hub asks for fewer requests", "Wait a while and try again."),
}


@contextlib.contextmanager
def hub_errors_in_words(doing: str, hint: str = "") -> Iterator[None]:
    """Turn whatever the client raises into one sentence and a way out.

    :param hint: what to do, where the failure itself does not say it better
    """
    session = get_session()
    patience, session.timeout = session.timeout, PATIENCE  # the client would wait for ever
    try:
        yield
    except RlrunError:
        raise
    except HFValidationError as error:
        raise UsageError(f"{' '.join(str(error).split())[:200]}", "A repository is named user/name.") from None
    except HfHubHTTPError as error:
        raise _of_status(error, doing, hint) from None
    except OfflineModeIsEnabled:
        raise UsageError(f"HF_HUB_OFFLINE is set, which forbids {doing}.", "Unset it.") from None
    except LocalEntryNotFoundError as error:
        raise RlrunError(f"The Hub was not reached while {doing} ({_cause(error)}).", hint or "Try again.") from None
    except Exception as error:  # the HTTP library under the client is not part of its interface
        reason = without_token(f"{type(error).__name__}: {' '.join(str(error).split())[:200]}")
        raise RlrunError(f"The Hub was not reached while {doing} ({reason}).", hint or "Try again.") from None
    finally:
        session.timeout = patience


def _of_status(error: HfHubHTTPError, doing: str, hint: str) -> RlrunError:
    response = error.response
    status = response.status_code if response is not None else 0
    kind, reason, way_out = _REASONS.get(status, (RlrunError, f"The Hub failed (status {status})", "Try again."))
    wait = response.headers.get("Retry-After", "") if response is not None else ""
    if status == 429 and wait.isdigit():
        way_out = f"Wait {wait} s and try again."
    return kind(f"{reason} while {doing}.", f"{way_out} {hint}".strip())


def _cause(error: BaseException) -> str:
    cause = error.__cause__ or error
    return without_token(f"{type(cause).__name__}: {' '.join(str(cause).split())[:200]}")


def without_token(text: str) -> str:
    """Text in which no token stands."""
    token = get_token()
    text = text.replace(token, "***") if token else text
    return re.sub(r"hf_\w{8,}", "***", text)


def writing_client(repo: str) -> HfApi:
    """A client that may write into a repository, as far as that can be known before.

    :raises UsageError: without a token, or with one that may not
    """
    if not get_token():
        hint = "Log in with `hf auth login`, or set HF_TOKEN. `rlrun package RUN` makes the folder alone, offline."
        raise UsageError("There is no Hub token.", hint)
    user, slash, name = repo.partition("/")
    if not slash or not user or not name:
        raise UsageError(f'"{repo}" names no repository.', "A repository is named user/name.")
    api = HfApi()
    with hub_errors_in_words("asking who the token belongs to"):
        who = api.whoami()
    own = [who.get("name"), *(organisation.get("name") for organisation in who.get("orgs") or ())]
    if user not in own:
        raise UsageError(f"The token belongs to {own[0]}, who cannot write to {user}.", f"Use --repo {own[0]}/{name}")
    role = ((who.get("auth") or {}).get("accessToken") or {}).get("role")
    if role == "read":
        raise UsageError("The token may only read.", "Make one with the role `write` in the Hub's settings.")
    return api


@contextlib.contextmanager
def quiet_without_terminal() -> Iterator[None]:
    """The client's progress bars are for people."""
    if sys.stderr.isatty() or are_progress_bars_disabled():
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()
