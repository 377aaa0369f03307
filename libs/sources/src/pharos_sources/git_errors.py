"""What can go wrong between a repository's address and its files: one sentence each, fit for a user.

No message holds a token, a path of this machine or text that the remote server chose.
"""

from __future__ import annotations


class FetchError(Exception):
    """Base of the errors below.

    `transient` says whether trying again may help. `diagnostic` is the end of git's own output, for logs,
    with tokens and local paths taken out; it is not part of the message.
    """

    transient: bool = False

    def __init__(self, message: str, *, transient: bool | None = None, diagnostic: str = "") -> None:
        super().__init__(message)
        self.diagnostic = diagnostic
        if transient is not None:
            self.transient = transient


class RepositoryNotFound(FetchError):
    """No such repository, or one that only a credential may see; `denied`: the server asked for one."""

    def __init__(self, url: str, *, denied: bool = False, diagnostic: str = "") -> None:
        super().__init__(f"Repository not found, or it is private: {url}", diagnostic=diagnostic)
        self.url = url
        self.denied = denied


class RefNotFound(FetchError):
    """The repository has no such branch, tag or commit."""

    def __init__(self, url: str, ref: str, *, diagnostic: str = "") -> None:
        super().__init__(f"There is no branch, tag or commit {ref} in {url}", diagnostic=diagnostic)
        self.url = url
        self.ref = ref


class RepositoryEmpty(FetchError):
    """The repository has no commits."""

    def __init__(self, url: str) -> None:
        super().__init__(f"The repository is empty: {url}")
        self.url = url


class RepositoryTooLarge(FetchError):
    """The repository exceeds a limit; `limit` is that limit in words."""

    def __init__(self, url: str, limit: str) -> None:
        super().__init__(f"The repository is larger than {limit}: {url}")
        self.url = url
        self.limit = limit


class FetchTimedOut(FetchError):
    """The repository did not arrive in time."""

    transient = True

    def __init__(self, url: str, seconds: float) -> None:
        super().__init__(f"The repository could not be fetched within {seconds:g} seconds: {url}")
        self.url = url
        self.seconds = seconds


class HostUnreachable(FetchError):
    """The host has no address, does not answer, or cannot prove who it is."""

    def __init__(self, host: str, *, transient: bool, diagnostic: str = "") -> None:
        super().__init__(f"The host could not be reached: {host}", transient=transient, diagnostic=diagnostic)
        self.host = host


class FetchFailed(FetchError):
    """Everything else; `reason` is a clause."""

    def __init__(self, reason: str, *, transient: bool = False, diagnostic: str = "") -> None:
        super().__init__(f"Failed to clone repository: {reason}", transient=transient, diagnostic=diagnostic)
        self.reason = reason


class GitMissing(FetchError):
    """This machine has no git that can be used safely."""

    def __init__(self) -> None:
        super().__init__("Failed to clone repository: git 2.37 or newer is not installed here")
