"""The one error class, and the register of every error code.

An error names the thing, the value and the limit, and ends with the command that helps::

    raise EdgewrightError("E104", "file `net.onnx` does not exist", hint="ls .")

The command line prints it as ``error[E104]: ...`` and exits with `exit_code`. `assert` is for our own bugs.
"""

from __future__ import annotations

from typing import Any

#: Every code with what it means. `docs/errors.md` is generated from this table; a test formats each one.
CODES: dict[str, str] = {
    # E1xx: the call and the surroundings
    "E101": "a name (plugin, recipe, zoo model, tensor) is not known",
    "E102": "a plugin needs a package that is not installed",
    "E103": "an option has a value it cannot take",
    "E104": "a file or folder does not exist or cannot be read",
    "E105": "an output exists already or cannot be written",
    # E2xx: models, graphs and bundles
    "E201": "a file is not the format its name promises, or is cut short",
    "E202": "a tensor's declared size does not fit its data",
    "E203": "a graph has a cycle or uses a value before it is made",
    "E204": "a graph uses operators that nobody defines",
    "E205": "an operator or opset version has no upgrade to the one used in memory",
    "E206": "external data lies outside the model's folder or is missing",
    "E207": "a checkpoint asks for something other than tensors",
    "E208": "a checkpoint does not fit the network",
    "E209": "a graph needs sizes that are not known",
    "E210": "a runtime cannot run some nodes of a graph",
    "E211": "a runtime does not execute this quantization format",
    "E212": "a pass cannot work on this graph",
    "E213": "a file is not valid ONNX",
    "E214": "a Darknet cfg has values or sizes that cannot be",
    "E215": "an ncnn .param has values or sizes that cannot be",
    "E216": "a TFLite file has options, types or shapes that cannot be",
    "E220": "a bundle's files do not match its manifest",
    "E221": "a bundle's manifest is missing or malformed",
    "E222": "a bundle was made from another network",
    "E230": "an input of a run does not fit what the network takes",
    "E231": "a tensor cannot be shown by this runtime",
    "E232": "a runtime failed while loading or running a network",
    "E233": "a session is used after it was closed",
    "E240": "a bundle's hooks may not run or cannot be used",
    # E3xx: samples and gates
    "E301": "there are no usable samples",
    "E302": "too few samples could be read",
    "E303": "a spec is missing or does not fit the network",
    "E304": "a sample was used to make the file it should judge",
    "E305": "labels are missing or malformed",
    "E310": "a gate failed",
    "E311": "a gate is undecided: too few samples",
    "E320": "a recipe is malformed",
    # E4xx: measuring
    "E401": "a benchmark worker died",
    "E402": "a measurement is invalid",
    "E410": "another machine cannot be reached",
    "E411": "another machine lacks what a benchmark needs",
    "E412": "the connection to another machine was lost",
    # E5xx: training
    "E501": "training met a value that is no number",
    "E502": "a saved training cannot be gone on with",
}


class EdgewrightError(Exception):
    """A user's mistake or a failed gate, with what to do about it.

    Attributes:
        code: A key of `CODES`.
        message: One sentence naming the thing, the value and the limit; no final period.
        details: Further lines, shown indented below the message.
        hint: The command that helps, or None.
        exit_code: 1 where a gate failed or is undecided, 2 where the work could not run.
    """

    def __init__(self, code: str, message: str, *, details: tuple[str, ...] = (), hint: str | None = None) -> None:
        assert code in CODES, f"unregistered error code {code}"
        super().__init__(message)
        self.code = code
        self.message = message
        self.details = details
        self.hint = hint
        self.exit_code = 1 if code in {"E310", "E311"} else 2

    def __str__(self) -> str:
        lines = [f"error[{self.code}]: {self.message}", *(f"  {line}" for line in self.details)]
        if self.hint:
            lines += ["", f"hint: {self.hint}"]
        return "\n".join(lines)

    def __reduce__(self) -> tuple[Any, ...]:
        return (_rebuild, (self.code, self.message, self.details, self.hint))

    def to_json(self) -> dict[str, Any]:
        """The error as the `error` member of a `--json` document."""
        return {"code": self.code, "message": self.message, "details": list(self.details), "hint": self.hint}


def _rebuild(code: str, message: str, details: tuple[str, ...], hint: str | None) -> EdgewrightError:
    return EdgewrightError(code, message, details=details, hint=hint)


class EdgewrightWarning(UserWarning):
    """Something a user should know that does not stop the work, for example a bundle made for another CPU."""
