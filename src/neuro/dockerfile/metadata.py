"""Instructions that only change an image's configuration, and how its history shows them."""

from __future__ import annotations

import re
from collections.abc import Mapping

from neuro.dockerfile import tree
from neuro.dockerfile.image import Health, ImageConfig
from neuro.dockerfile.ports import exposed
from neuro.dockerfile.scope import Expander
from neuro.dockerfile.values import integer, quoted, written_duration

_SIGNALS = frozenset(
    re.findall(
        r"\S+",
        """ABRT ALRM BUS CHLD CLD CONT FPE HUP ILL INT IO IOT KILL PIPE POLL PROF PWR QUIT SEGV
        STKFLT STOP SYS TERM TRAP TSTP TTIN TTOU URG USR1 USR2 VTALRM WINCH XCPU XFSZ RTMIN
        RTMAX""",
    )
) | {
    *(f"RTMIN+{number}" for number in range(1, 16)),
    *(f"RTMAX-{number}" for number in range(1, 15)),
}
Pairs = list[tuple[str, str]]


def pairs(found: tuple[tree.Pair, ...], expander: Expander, variables: Mapping[str, str]) -> Pairs:
    """Names and values, all expanded with what was known before the instruction."""
    return [
        (
            expander.word(name, variables),
            expander.word(value, variables) if value is not None else "",
        )
        for name, value in found
    ]


def written(keyword: str, found: Pairs) -> str:
    """``ENV a=b c=d``."""
    return " ".join([keyword, *(f"{name}={value}" for name, value in found)])


def command(keyword: str, argv: tuple[str, ...]) -> str:
    """``CMD ["a" "b"]``."""
    return f"{keyword} [{' '.join(map(quoted, argv))}]"


def setting(
    one: tree.Instruction, config: ImageConfig, expander: Expander, variables: Mapping[str, str]
) -> tuple[dict[str, object], str]:
    """What an instruction changes in the configuration, and its line in the history."""
    match one:
        case tree.Label():
            found = pairs(one.pairs, expander, variables)
            return {"labels": {**(config.labels or {}), **dict(found)}}, written("LABEL", found)
        case tree.Expose():
            ports = _ports(one, expander, variables)
            changed = {**(config.exposed_ports or {}), **{port: {} for port in ports}}
            return {"exposed_ports": changed}, f"EXPOSE [{' '.join(ports)}]"
        case tree.Volume():
            paths = [expander.word(path, variables) for path in one.paths]
            for path, word in zip(paths, one.paths, strict=True):
                if not path:
                    raise expander.fail(f"The path {word.text} of VOLUME is empty.", word.at)
            changed = {**(config.volumes or {}), **{path: {} for path in paths}}
            return {"volumes": changed}, f"VOLUME [{' '.join(paths)}]"
        case tree.User():
            name = expander.word(one.name, variables)
            return {"user": name}, f"USER {name}"
        case tree.StopSignal():
            signal = expander.word(one.signal, variables)
            if not integer(signal) and signal.upper().removeprefix("SIG") not in _SIGNALS:
                hint = "Write SIGTERM, SIGINT or a number."
                raise expander.fail(f"'{signal}' is not a signal.", one.signal.at, hint)
            return {"stop_signal": signal}, f"STOPSIGNAL {signal}"
        case tree.Shell():
            words = tuple(word.text for word in one.words)
            return {"shell": words}, f"SHELL [{' '.join(words)}]"
        case tree.Healthcheck():
            health = _health(one)
            return {"healthcheck": health}, f"HEALTHCHECK {_shown(health)}"
    raise TypeError(f"{type(one).__name__} is not a setting.")


def _ports(one: tree.Expose, expander: Expander, variables: Mapping[str, str]) -> list[str]:
    found: list[str] = []
    for word in one.ports:
        for text in expander.words(word, variables):
            ports = exposed(text)
            if ports is None:
                hint = "Write 8080, 8080/udp or 8000-8010."
                raise expander.fail(f"'{text}' is not a port.", word.at, hint)
            found += ports
    return found


def _health(one: tree.Healthcheck) -> Health:
    if one.command is None:
        return Health(("NONE",))
    words = tuple(word.text for word in one.command.words)
    return Health(
        ("CMD" if one.command.is_json else "CMD-SHELL", *words),
        one.interval,
        one.timeout,
        one.start_period,
        one.start_interval,
        one.retries,
    )


def _shown(health: Health) -> str:
    times = {
        "Interval": health.interval,
        "Timeout": health.timeout,
        "StartPeriod": health.start_period,
        "StartInterval": health.start_interval,
    }
    written_times = " ".join(f"{name}:{written_duration(time)}" for name, time in times.items())
    return f"{{Test:[{' '.join(health.test)}] {written_times} Retries:{health.retries}}}"
