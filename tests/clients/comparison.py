"""Compares the requests that arrive when a program asks a provider directly and through evertoken, field by field."""

import json
import re

from recorder import CREDENTIAL_FIELDS, HOP_BY_HOP

# Fields of a request that may differ, each with its reason. The value of `Host` is not among them: the
# provider's own is what arrives on each way.
MAY_DIFFER = {
    **dict.fromkeys(HOP_BY_HOP, "belongs to one connection (RFC 9110 §7.6.1)"),
    **dict.fromkeys(CREDENTIAL_FIELDS, "the credential, which the recorder checks"),
    "expect": "is answered by whoever reads the body first",
    "content-length": "the recorder reads the body by it, and the bodies are compared",
}
# What differs between two runs of one program, whoever they ask.
VARYING = [
    (r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", "(uuid)"),
    (r"\b[0-9a-f]{32}([0-9a-f]{32})?\b", "(id)"),
    (r"unix_ms\\?\"?:\d{13}", "(milliseconds)"),
    (r'"create_time":\d+\.\d+', '"create_time":0'),
]


def steady(text, also=()):
    """The text without what differs between two runs."""
    for pattern, name in [*VARYING, *also]:
        text = re.sub(pattern, name, text)
    return text


def comparable(record, scenario):
    """What must be the same on each way: method, target, fields in their order, body."""
    fields = [(spelled(name), value) for name, value in record.headers if name.lower() not in MAY_DIFFER]
    # Fields that evertoken writes itself stand where it puts them.
    fields.sort(key=lambda field: field[0].lower() if field[0].lower() in {"host", *scenario.added} else "")
    fields = [steady(f"{name}: {value}", scenario.varying) for name, value in fields]
    body = steady(record.body.decode("latin-1"), scenario.varying)
    if scenario.shuffles_json and body:
        body = json.dumps(json.loads(body), sort_keys=True)
    return record.method, record.target, fields, body


def spelled(name):
    """The name as it was written, but that evertoken writes `host` itself."""
    return "host" if name.lower() == "host" else name


def without_added(record, scenario):
    """The record without what the provider's entry adds to it, which must be there."""
    if parameter := scenario.added_query:
        assert parameter in record.target, f"{record}: no {parameter}"
        record.target = re.sub(rf"[?&]{re.escape(parameter)}", "", record.target)
    for name, value in scenario.added.items():
        found = [(own, value_here) for own, value_here in record.headers if own.lower() == name]
        assert len(found) == 1 and value in found[0][1], f"{record}: no {value} in {name}: {found}"
        rest = found[0][1].replace(value, "").strip(", ")
        at = record.headers.index(found[0])
        record.headers[at : at + 1] = [(found[0][0], rest)] if rest else []
    return record


def differences(directly, through, scenario):
    """In words, where the second list of records is not as the first; parallel requests may arrive in any order."""
    first, second = (sorted(comparable(record, scenario) for record in records) for records in (directly, through))
    if len(first) != len(second):
        return [f"{len(first)} requests directly, {len(second)} through evertoken: {directly} / {through}"]
    found = []
    for one, other in zip(first, second):
        where = f"{one[0]} {one[1]}"
        if one[:2] != other[:2]:
            found.append(f"{where} became {other[0]} {other[1]}")
        if one[2] != other[2]:
            lost = [field for field in one[2] if field not in other[2]]
            new = [field for field in other[2] if field not in one[2]]
            found.append(f"{where}: lost {lost}, new {new}" if lost or new else f"{where}: the fields' order changed")
        if one[3] != other[3]:
            found.append(f"{where}: {difference(one[3], other[3])}")
    return found


def difference(one, other):
    """Where two bodies part."""
    at = next((at for at, (left, right) in enumerate(zip(one, other)) if left != right), min(len(one), len(other)))
    begin = max(0, at - 40)
    return f"bodies of {len(one)} and {len(other)} characters part at {at}: {one[begin:at + 60]!r} / {other[begin:at + 60]!r}"
