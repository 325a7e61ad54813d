"""What can go wrong between this machine and the hub, in sentences."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from json import JSONDecodeError

from hfbench.foundation.errors import UserError
from hfbench.foundation.sources import HubSource
from hfbench.models.progress import one_line


class HubUnreachableError(Exception):
    """The hub gave no answer, or none of its own; the message is the reason."""


@contextmanager
def hub_errors(source: HubSource) -> Iterator[None]:
    """Turn what huggingface_hub raises into `UserError`, or `HubUnreachableError` where the hub could not be asked."""
    from httpx2 import HTTPError
    from huggingface_hub import errors

    try:
        yield
    except errors.GatedRepoError as error:
        raise UserError(
            f"the hub's repository {source.repository} is gated. Accept its conditions on its page with your account, "
            "and set HF_TOKEN to a token of that account."
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise UserError(
            f"the hub has no model {source.repository} that can be seen from here. Check the name in params.yaml; if "
            "the repository is private, set HF_TOKEN to a token that may read it."
        ) from error
    except errors.RevisionNotFoundError as error:
        raise UserError(
            f"the hub's repository {source.repository} has no revision {source.revision!r}. Set revision to one of its "
            "branches, tags or commits."
        ) from error
    except errors.OfflineModeIsEnabled as error:
        raise HubUnreachableError("HF_HUB_OFFLINE is set") from error
    except errors.LocalEntryNotFoundError as error:  # a download whose connection broke before its first byte
        if isinstance(error.__cause__, errors.HfHubHTTPError):
            raise _of_status(error.__cause__.response.status_code, source) from error
        raise HubUnreachableError(one_line(error.__cause__ or error)) from error
    except errors.HFValidationError as error:
        raise UserError(f"{source.repository!r} is no name of a repository on the hub ({one_line(error)})") from error
    except errors.HfHubHTTPError as error:
        raise _of_status(error.response.status_code, source) from error
    except (HTTPError, JSONDecodeError, errors.FileMetadataError) as error:  # no connection, or not the hub's answer
        raise HubUnreachableError(f"{type(error).__name__}: {one_line(error)}") from error
    except OSError as error:
        raise _of_disk(error, source) from error


def _of_status(status: int, source: HubSource) -> UserError | HubUnreachableError:
    if status in (401, 403):
        return UserError(
            f"the hub refused access to {source.repository} ({status}). Set HF_TOKEN to a valid token that may read it."
        )
    if status == 429 or status >= 500:
        return HubUnreachableError(f"it answered {status}")
    return UserError(
        f"the hub answered {status} where {source.repository} was asked for. If HF_ENDPOINT is set, check that "
        "a hub is there."
    )


def _of_disk(error: OSError, source: HubSource) -> Exception:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return UserError(
            f"the disk is full: {source.repository} could not be downloaded. Free some space, or set HF_HOME to a "
            "folder on another disk."
        )
    if error.errno in (errno.EACCES, errno.EROFS):
        return UserError(f"{error.filename} cannot be written ({error.strerror}). Set HF_HOME to a folder that can.")
    if "Consistency check failed" in str(error):
        return HubUnreachableError("the connection broke during a download")
    return error
