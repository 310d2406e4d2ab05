"""A refusal, which is final: the caller is told, and nothing is retried."""


class Refusal(Exception):
    """The request is wrong and will be wrong again."""

    def __init__(self, status: int, code: str, message: str | None = None):
        super().__init__(code)
        self.status = status
        self.code = code
        self.message = message or code
