"""Names, labels and quantities of Kubernetes. Pure."""

from __future__ import annotations

import re

from flow_providers.errors import BadOption

TAG = "flow-tag"
"""Label of everything that is ours, with the job's tag as its value."""
JOB = "flow-job"
"""Label with the job's id."""
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_QUANTITY = re.compile(r"([0-9]+(?:\.[0-9]+)?)(m|k|M|G|T|P|Ki|Mi|Gi|Ti|Pi)?")
_UNITS = {
    "": 1.0,
    "m": 1e-3,
    "k": 1e3,
    "M": 1e6,
    "G": 1e9,
    "T": 1e12,
    "P": 1e15,
    "Ki": 2.0**10,
    "Mi": 2.0**20,
    "Gi": 2.0**30,
    "Ti": 2.0**40,
    "Pi": 2.0**50,
}
_LONGEST = 63  # characters of a label's value, and of a host name
_ID_END = 20  # "-", 13 digits of a time in ms, "-", 5 characters


def check_name(option: str, name: str) -> str:
    """Return a name. BadOption: Kubernetes would not take it."""
    if not _NAME.fullmatch(name) or len(name) > _LONGEST - _ID_END:
        raise BadOption(
            f"{option}={name!r} is no name for Kubernetes: write lower-case letters, digits and '-', "
            f"at most {_LONGEST - _ID_END}, a letter or digit first and last"
        )
    return name


def base_name(name: str) -> str:
    """Return any name as one that Kubernetes takes and that leaves room for its unique end."""
    safe = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    return safe[: _LONGEST - _ID_END].rstrip("-") or "flow"


def job_id(base: str, now_ms: int, unique: str) -> str:
    """Return the id of a job: a name with the time and something unique appended."""
    return f"{base}-{now_ms}-{unique}"


def pod_name(job: str, node: int, nodes: int) -> str:
    """Return the name of the pod of one node of a job."""
    return job if nodes == 1 else f"{job}-{node}"


def secret_key(name: str) -> str:
    """Return a secret's name as a file name that Kubernetes takes."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", name)[:200].lstrip(".") or "secret"


def amount(option: str, quantity: str) -> float:
    """Return the number of a quantity such as ``500Mi``. BadOption: it is none."""
    match = _QUANTITY.fullmatch(quantity)
    if match is None:
        raise BadOption(
            f"{option}={quantity!r} is no quantity of Kubernetes: write a number and a unit, such as '500Mi'"
        )
    return float(match[1]) * _UNITS[match[2] or ""]


def selector(jobs: list[str]) -> str:
    """Return the label selector of some jobs of ours; of all when there are too many to be named in an address."""
    # 50 ids of up to 63 characters are some 3 kB; servers and proxies refuse addresses above 8 kB.
    return f"{TAG},{JOB} in ({','.join(jobs)})" if 0 < len(jobs) <= 50 else TAG
