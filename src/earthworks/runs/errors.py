"""The package's error class, with a message for the user."""


class EarthworksError(ValueError):
    """One sentence: what was given, what was expected, what to do. Shown without a traceback.

    `exit_code` is 2 for a user error (the default), 1 for a failure, such as a full disk, 75 after SIGTERM or SIGUSR1 and
    130 after Ctrl-C when the work so far is saved.
    """

    def __init__(self, message: str, exit_code: int = 2):
        super().__init__(message)
        self.exit_code = exit_code


class Stopped(BaseException):
    """SIGTERM or SIGUSR1, raised in the main thread, so that partial files are removed on the way out.

    A command that has saved its work, and resumes when it is run again, ends in an EarthworksError with exit code 75
    instead (`EX_TEMPFAIL`: batch systems read it as "start me again").
    """

    def __init__(self, signal: str):
        super().__init__(f"stopped by {signal}")
        self.signal = signal


# exit codes in addition to 0, 1 (failure) and 2 (user error)
UNREADABLE = 3  # done, but some records could not be read
TRY_AGAIN = 75  # stopped by SIGTERM or SIGUSR1; what was done is saved
INTERRUPTED = 130  # stopped by Ctrl-C


def missing_extra(package: str, extra: str, purpose: str) -> EarthworksError:
    """The error for a missing optional dependency."""
    return EarthworksError(f"{purpose} needs the package {package}: pip install 'earthworks[{extra}]'")
