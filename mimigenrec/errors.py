"""Errors that a user can mend, whose text is all that the user needs: what was found, where, and what to do.

`mimigenrec.cli` prints them as one message, without a traceback. Everything else that is raised is a fault of ours.
"""


class UserError(ValueError):
    """Input, settings or files with which a command cannot go on."""


class UsageError(UserError):
    """A command line or YAML that cannot be meant: exit status 2."""


class MissingPackage(UserError, ImportError):
    """An optional package that is not installed; the text holds the command that installs it."""
