"""The one error class of the package: a sentence for the person at the keyboard."""


class EarthworksError(ValueError):
    """What was given, what was expected, what to do: one sentence, shown without a traceback.

    `exit_code` is 2 for a mistake of the user (the default), 1 for work that failed, such as a full disk, 75 after SIGTERM
    or SIGUSR1 and 130 after Ctrl-C when what was done is saved.
    """

    def __init__(self, message: str, exit_code: int = 2):
        super().__init__(message)
        self.exit_code = exit_code


class Stopped(BaseException):
    """SIGTERM or SIGUSR1 came: raised in the main thread, so that what is half written is removed on the way out.

    A command that has kept what it did, and goes on when it is given again, ends in an EarthworksError with exit code 75
    instead (`EX_TEMPFAIL`: batch systems read it as "start me again").
    """

    def __init__(self, signal: str):
        super().__init__(f"stopped by {signal}")
        self.signal = signal


# exit codes beside 0, 1 (the work failed) and 2 (the user's mistake)
UNREADABLE = 3  # done, but some records could not be read
TRY_AGAIN = 75  # stopped by SIGTERM or SIGUSR1; what was done is saved
INTERRUPTED = 130  # stopped by Ctrl-C


def missing_extra(package: str, extra: str, purpose: str) -> EarthworksError:
    """The sentence for an optional dependency that is needed now and is not installed."""
    return EarthworksError(f"{purpose} needs the package {package}: pip install 'earthworks[{extra}]'")
