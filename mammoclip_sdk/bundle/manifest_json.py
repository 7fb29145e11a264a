"""``manifest.json``: its text, written in one form and read strictly, with all problems together.

What `manifest_to_json` writes is the canonical form: UTF-8, keys in the order of the dataclasses
and those of mappings sorted, floats as Python's ``repr`` has them, no escape that JSON does not
ask for, two spaces for each level, and a line's end behind the last brace. A signature is made
over these bytes, and a signed manifest is read in no other form.
"""

from __future__ import annotations

from mammoclip_sdk import strict_json
from mammoclip_sdk.bundle.contradictions import contradictions
from mammoclip_sdk.bundle.files import MANIFEST
from mammoclip_sdk.bundle.manifest import SCHEMA, Manifest
from mammoclip_sdk.errors import BundleFormatError, BundleSignatureError, BundleVersionError
from mammoclip_sdk.preprocessing import PREPROCESSING_VERSION


def manifest_to_json(manifest: Manifest) -> str:
    """Write the manifest as JSON text that `manifest_from_json` turns back into its equal."""
    try:
        text = strict_json.dumps(manifest)
    except (TypeError, ValueError) as error:
        raise format_error("manifest", [str(error)]) from error
    # A caller's 1 for 1.0 is written as it would be read.
    read = strict_json.from_plain(Manifest, strict_json.parse(text)[0], [])
    return (text if read is None else strict_json.dumps(read)) + "\n"


def manifest_from_json(text: str, *, subject: str) -> Manifest:
    """Read a manifest, with every problem in one error.

    Raises
    ------
    BundleVersionError
        Before anything else is looked at: a newer schema has keys that mean nothing here.
    BundleFormatError
    """
    plain, problems = strict_json.parse(text)
    _check_schema(plain, subject)
    manifest = None if plain is None else strict_json.from_plain(Manifest, plain, problems)
    if manifest is not None:
        problems.extend(contradictions(manifest))
    if manifest is None or problems:
        raise format_error(subject, problems)
    return manifest


def _check_schema(plain: object, subject: str) -> None:
    if not isinstance(plain, dict):
        return
    schema, preprocessing = plain.get("schema"), plain.get("preprocessing")
    version = preprocessing.get("version") if isinstance(preprocessing, dict) else None
    known = {"schema": (schema, SCHEMA), "preprocessing.version": (version, PREPROCESSING_VERSION)}
    for key, (found, expected) in known.items():
        if type(found) is int and found != expected:
            newer = "Use the newer version of mammoclip-sdk that this bundle was made for."
            older = "Export it again with this version, or use the older one it was made for."
            raise BundleVersionError(
                f"{subject}: {key}",
                found=str(found),
                expected=str(expected),
                remedy=newer if found > expected else older,
            )


def format_error(subject: str, problems: list[str]) -> BundleFormatError:
    """Put every problem that was found into one error."""
    return BundleFormatError(
        subject,
        found=f"{len(problems)} problem{'s' * (len(problems) != 1)}: "
        + strict_json.listed(problems),
        expected=f"a manifest of schema {SCHEMA}, with all of its keys and no others",
        remedy="Make the bundle again with the exporter of this version.",
    )


def not_canonical(subject: str) -> BundleSignatureError:
    """Say that a manifest is not in the form that is signed."""
    return BundleSignatureError(
        f"{subject}: {MANIFEST}",
        found="a manifest in another form than this software writes",
        expected="its canonical form, without which a signature has no one meaning",
        remedy="Write the bundle again with this software, and sign that.",
        code="not_canonical",
    )
