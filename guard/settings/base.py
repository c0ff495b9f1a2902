"""What every part of the settings is, and how a mistake in them is told."""

import pydantic
from pydantic import BaseModel, ConfigDict


class ConfigError(ValueError):
    """Bad settings. `path` names the key: `models.0.detectors.1.options.bits`."""

    def __init__(self, path: str, message: str) -> None:
        super().__init__(f"{path}: {message}" if path else message)
        self.path, self.message = path, message

    def below(self, path: str) -> "ConfigError":
        """The same, of a key under another one."""
        return ConfigError(f"{path}.{self.path}" if self.path else path, self.message)


class Section(BaseModel):
    """A mapping of the file: unknown keys are mistakes, and nothing changes once it is read."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, validate_default=True, allow_inf_nan=False
    )


def first_error(error: pydantic.ValidationError, prefix: str = "") -> ConfigError:
    """The first of pydantic's complaints, in one line with its path."""
    first = error.errors(include_url=False)[0]
    path = ".".join([prefix, *map(str, first["loc"])] if prefix else map(str, first["loc"]))
    message = "unknown key" if first["type"] in {"extra_forbidden", "unexpected_keyword_argument"} else first["msg"]
    return ConfigError(path, message.removeprefix("Value error, "))
