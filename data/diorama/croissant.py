"""The shipped clips described for machines: Croissant metadata with the responsible-AI fields (ours).

Reads `data/diorama/clips/`; writes `data/diorama/croissant.json`. Needs mlcroissant (the extra `artifact`). What is not known
before a release, address and date, is left out, and mlcroissant warns of it.

    python data/diorama/croissant.py
"""

import hashlib
import json
import logging
from pathlib import Path

import mlcroissant as mlc

import rmkit

HERE = Path(__file__).resolve().parent
OUT = HERE / "croissant.json"
RAI = "http://mlcommons.org/croissant/RAI/1.0"
# Of meta.json: field, type, what it is.
FIELDS = (
    ("sequence", "Text", "name of the sequence"),
    ("split", "Text", "train, validation or road"),
    ("world", "Text", "street, interior or road"),
    ("seed", "Integer", "of the scene; the splits' ranges are disjoint"),
    ("fps", "Integer", "frames a second"),
)
FILES = {
    "meta": (
        "*/meta.json",
        "application/json",
        "shots with captions, objects, identities, faces with landmarks",
    ),
    "render": ("*/render.mp4", "video/mp4", "what a game shows: flat materials, hard sun, no bounced light"),
    "truth": ("*/truth.mp4", "video/mp4", "the same scene path traced (validation and road)"),
    "depth": (
        "*/depth.mp4",
        "video/mp4",
        "disparity in 8 bits (train and validation); meta.json has its scale",
    ),
    "visible": ("*/visible.npz", "application/x-npz", "object ids by pixel"),
    "weather": ("weather/*.mp4", "video/mp4", "the truth of two validation sequences in other weather"),
}


def metadata() -> mlc.Metadata:
    """The description, built and checked by mlcroissant."""
    sums = HERE / "clips" / "SHA256SUMS"
    files = [
        mlc.FileObject(
            id="checksums",
            name="SHA256SUMS",
            description="SHA-256 of every other file",
            content_url="clips/SHA256SUMS",
            encoding_formats=["text/plain"],
            sha256=hashlib.sha256(sums.read_bytes()).hexdigest(),
        ),
        *(
            mlc.FileSet(
                id=name, name=name, description=text, includes=[f"clips/{glob}"], encoding_formats=[kind]
            )
            for name, (glob, kind, text) in FILES.items()
        ),
    ]
    fields = [
        mlc.Field(
            id=f"sequences/{name}",
            name=name,
            description=text,
            data_types=[getattr(mlc.DataType, kind.upper())],
            source=mlc.Source(file_set="meta", extract=mlc.Extract(json_path=name)),
        )
        for name, kind, text in FIELDS
    ]
    return mlc.Metadata(
        ctx=mlc.Context(conforms_to=["http://mlcommons.org/croissant/1.0", RAI]),
        name="diorama",
        description="A miniature world for sim-to-real video: short clips of streets, rooms and roads, each rendered by "
        "Blender twice from one scene, as a game shows it and path traced.",
        license=["https://spdx.org/licenses/Apache-2.0.html"],
        version=rmkit.__version__,
        creators=[mlc.Organization(name="The rmkit contributors")],
        cite_as="See CITATION.cff of the repository that holds this file.",
        keywords=["sim-to-real", "video", "synthetic", "Blender"],
        distribution=files,
        record_sets=[
            mlc.RecordSet(id="sequences", name="sequences", description="a record a sequence", fields=fields)
        ],
        **responsible(),
    )


def responsible() -> dict[str, str | list[str]]:
    """The responsible-AI fields, https://docs.mlcommons.org/croissant/docs/croissant-rai-spec.html."""
    return {
        "data_collection": "Generated: scenes, cameras and figures are drawn from seeds (world.py, staging.py) and rendered "
        "by Blender 5.0 (render.py). Nothing was filmed, downloaded or taken from another data set.",
        "data_collection_type": ["Software Collection"],
        "data_preprocessing_protocol": [
            "bundle.py selects sequences and encodes them by x264 at its best quality that fits."
        ],
        "data_annotation_protocol": "Captions, object ids, depth, faces and identities are written by the generator.",
        "machine_annotation_tools": ["data/diorama/render.py"],
        "personal_sensitive_information": [
            "None. Figures are assembled from simple shapes; their faces are nobody's."
        ],
        "data_biases": [
            "Figures are men and women by two words of the captions; skins, hair and clothes are short lists (world.py).",
            "Streets, rooms and cars have one made-up style; shots and camera moves come from a short list.",
        ],
        "data_limitations": [
            "96x144 pixels, 17 frames a shot, 8 a second; a toy world: results do not carry over to footage.",
            "The path-traced truth is itself a rendering, and says what is near to it, not what is real.",
        ],
        "data_use_cases": [
            "Trying out and testing sim-to-real methods where a ground truth exists.",
            "Not for: recognising people, driving, or claims about real footage.",
        ],
        "data_social_impact": "Small. The method it tests can make rendered people look filmed: label such videos as generated.",
        "data_release_maintenance_plan": "Versioned with the kit; changes are listed in CHANGELOG.md, files in SHA256SUMS.",
    }


def text() -> str:
    """croissant.json."""
    return json.dumps(metadata().to_json(), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    logging.getLogger("absl").setLevel(logging.ERROR)
    OUT.write_text(text())
