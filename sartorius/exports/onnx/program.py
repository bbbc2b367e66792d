"""The program `run.py` of an ONNX package: parts of this package, one below the other in one file.

Each part is the source of a module or of some of its definitions. Imports between parts are dropped, those of other
libraries are gathered at the top. A definition that parts call as `module.name` becomes `module_name`, and so does one
whose name two parts share.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

_STANDALONE = "sartorius.exports.onnx.standalone"
_REPLACED = {"cv2": f"{_STANDALONE}.opencv"}  # modules whose functions a part stands in for


@dataclass(frozen=True)
class Part:
    """A module of the program.

    only: its definitions that are taken; empty: all. without: methods of its classes that are left out.
    """

    module: str
    only: Sequence[str] = ()
    without: Sequence[str] = ()

    @property
    def name(self) -> str:
        """The last part of the module's name."""
        return self.module.rpartition(".")[2]


PARTS = (
    Part("sartorius.errors", ["InputError"]),
    Part("sartorius.files", ["atomic_path", "naming", "write_text"]),
    Part("sartorius.structures.arrays"),
    Part("sartorius.structures.cell_types", ["CELL_TYPES"]),
    Part("sartorius.structures.rules", ["Rule", "is_number", "number", "whole", "one_of", "list_of", "span", "map_of",
                                        "by_name", "flag", "fraction"]),
    Part("sartorius.structures.checks"),
    Part("sartorius.structures.windows", ["Window", "tiles", "five_crops", "_starts"]),
    Part("sartorius.structures.rle", ["_LARGEST", "RleError", "Runs", "parse", "_integers", "_no_integer", "_check",
                                      "format", "from_layers", "intersections", "in_rows", "overlaps"]),
    Part("sartorius.structures.instances", without=["from_rles", "from_masks", "to_rles", "select"]),
    Part("sartorius.structures.mask_sampling",
         ["sample_regions", "sample_pixels", "_starts", "_alike", "_bin_weights"]),
    Part("sartorius.structures.detections", ["_ARRAYS", "Detections"],
         ["empty", "from_instances", "concatenate", "save", "load"]),
    Part("sartorius.structures.detection_checks", ["MOST_IN_ONE_PIECE"]),
    Part("sartorius.data.levels"),
    Part("sartorius.data.channels"),
    Part("sartorius.data.tiff",
         ["MAGIC", "_WHITE", "_PUBLIC", "_JPEG", "_APART", "_MULTIPLIED", "_SAMPLES", "zarr_array",
          "open_tiff", "TiffImage", "axes_and_planes", "_check_directory", "_white", "_from_black", "_palette"],
         ["check_parts"]),
    Part("sartorius.data.image_files",
         ["_STORAGE", "NO_IMAGE", "explained", "is_tiff", "PillowImage", "_orientation", "_has_late_text", "upright"]),
    Part("sartorius.networks.normalisation", ["LEAST_STD"]),
    Part(f"{_STANDALONE}.opencv"),
    Part("sartorius.postprocess.thresholds"),
    Part("sartorius.postprocess.paste"),
    Part("sartorius.postprocess.nms"),
    Part("sartorius.postprocess.regions"),
    Part("sartorius.postprocess.candidates"),
    Part("sartorius.postprocess.step"),
    Part("sartorius.postprocess.steps"),
    Part("sartorius.postprocess.cleaning"),
    Part("sartorius.postprocess.finalise", ["Keeping", "Finalised", "Postprocess"],
         ["find", "with_step", "with_settings", "searchable"]),
    Part("sartorius.postprocess.maps"),
    Part("sartorius.postprocess.watershed"),
    Part("sartorius.postprocess.decoders"),
    Part("sartorius.inference.scaled", ["scaled_size", "_weights", "resized"]),
    Part("sartorius.inference.views", ["SYMMETRIES"]),
    Part(f"{_STANDALONE}.resizing"),
    Part(f"{_STANDALONE}.tiling"),
    Part(f"{_STANDALONE}.files"),
    Part(f"{_STANDALONE}.second"),
    Part(f"{_STANDALONE}.model"),
    Part(f"{_STANDALONE}.main"),
)  # fmt: skip


@dataclass
class _Source:
    """The source of a part: its docstring, the text of each definition, and what it imports from where.

    aliases: names of other modules. imports: of other libraries, lines by the name that they define. typing: the same
    of those for type checkers alone.
    """

    part: Part
    doc: str = ""
    blocks: list[tuple[str, str]] = field(default_factory=list)  # name ("" of a statement), text
    aliases: dict[str, str] = field(default_factory=dict)
    imports: dict[str, str] = field(default_factory=dict)
    typing: dict[str, str] = field(default_factory=dict)


def program(parts: Sequence[Part] = PARTS) -> str:
    """Return the source of the program; its docstring is that of the last part.

    Raises ValueError for a statement of a part that is neither an import nor a definition.
    """
    sources = [_read(part) for part in parts]
    imports = {name: line for source in sources for name, line in source.imports.items()}
    modules = {source.part.module for source in sources}
    for source in sources:
        source.aliases = {name: module for name, module in source.aliases.items() if module in modules}
    new = _new_names(sources, imports)
    texts, seen = list[str](), set[str]()
    for source in sources:
        blocks = [text for _, text in source.blocks if text not in seen]
        seen.update(text for text in blocks if "\n" not in text)  # `log = ...` of several parts
        heading = f"# {'-' * 100}\n# {source.part.module}\n"
        doc = "" if source is sources[-1] else "".join(f"# {line}".rstrip() + "\n" for line in source.doc.splitlines())
        texts.append(f"{heading}{doc}\n" + "\n\n\n".join(_renamed(text, source, new) for text in blocks))
    body = "\n\n\n".join(texts) + "\n"
    used = {token.string for token in tokenize.generate_tokens(io.StringIO(body).readline)}
    typing = {name: line for source in sources for name, line in source.typing.items() if name not in imports}
    lines = sorted({line for name, line in imports.items() if name in used | {"TYPE_CHECKING"}})
    lines += ["", "if TYPE_CHECKING:", *sorted(f"    {line}" for name, line in typing.items() if name in used)]
    future = "from __future__ import annotations"
    return f'"""{sources[-1].doc}\n"""\n\n{future}\n\n' + "\n".join(lines) + "\n\n\n" + body


def _read(part: Part) -> _Source:
    """Read the definitions of a part."""
    spec = find_spec(part.module)
    assert spec is not None and spec.origin is not None
    text = Path(spec.origin).read_text("utf-8")
    lines, tree, result, end = text.splitlines(), ast.parse(text), _Source(part), 0
    for node in tree.body:
        first, end = end, node.end_lineno or 0
        match node:
            case ast.Expr(value=ast.Constant(value=str(doc))):
                result.doc = doc.strip()
            case ast.Import() | ast.ImportFrom():
                _note_imports(node, result, result.imports)
            case ast.If(test=ast.Name(id="TYPE_CHECKING"), body=imports):
                for inner in imports:
                    assert isinstance(inner, ast.Import | ast.ImportFrom)
                    _note_imports(inner, result, result.typing)
            case _:
                name = _name(node, part)
                if not part.only or name in part.only or not name:
                    result.blocks.append((name, _text(node, lines, first, part)))
    return result


def _name(node: ast.stmt, part: Part) -> str:
    match node:
        case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
            return name
        case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
            return name
        case ast.Assign(targets=[ast.Tuple(elts=[ast.Name(id=name), *_])]):
            return name
        case ast.If(test=ast.Compare()):
            return ""
    raise ValueError(f"{part.module}: line {node.lineno} is neither an import nor a definition")


def _text(node: ast.stmt, lines: Sequence[str], first: int, part: Part) -> str:
    """Return the lines of a definition with the comments above it, without what the program does not need."""
    left_out = {
        line
        for method in ast.walk(node) if isinstance(method, ast.FunctionDef) and method.name in part.without
        for line in range(min([method.lineno, *(d.lineno for d in method.decorator_list)]) - 1, method.end_lineno or 0)
    }  # fmt: skip
    chosen = [lines[k] for k in range(first, node.end_lineno or 0) if k not in left_out]
    text = re.sub(r"\n{3,}", "\n\n", "\n".join(chosen).strip("\n"))
    text = re.sub(r"^@constructible\n", "", text, flags=re.MULTILINE)
    return re.sub(r"^ +from (sartorius|skimage)[\w.]* import .*\n+", "", text, flags=re.MULTILINE)


def _note_imports(node: ast.Import | ast.ImportFrom, source: _Source, imports: dict[str, str]) -> None:
    for alias in node.names:
        name = alias.asname or alias.name
        if isinstance(node, ast.Import):
            imports[name] = f"import {alias.name}" + (f" as {alias.asname}" if alias.asname else "")
            source.aliases[name] = _REPLACED.get(alias.name, alias.name)
        elif (node.module or "").startswith("sartorius"):
            source.aliases[name] = f"{node.module}.{alias.name}"
        elif node.module != "__future__":
            imports[name] = f"from {node.module} import {alias.name}"


def _new_names(sources: Sequence[_Source], imports: Mapping[str, str]) -> dict[tuple[str, str], str]:
    """Choose new names of definitions, by module and name: of those called `module.name`, and of shared ones."""
    qualified = set()
    for source in sources:
        for _, text in source.blocks:
            for name in source.aliases:
                qualified |= {(source.aliases[name], attribute) for attribute in re.findall(rf"\b{name}\.(\w+)", text)}
    texts: dict[str, set[str]] = {}
    for source in sources:
        for name, text in source.blocks:
            texts.setdefault(name, set()).add(text)
    taken = Counter({name: len(found) for name, found in texts.items()}) + Counter(list(imports))
    return {
        (source.part.module, name): f"{'_' * name.startswith('_')}{source.part.name}_{name.lstrip('_')}"
        for source in sources
        for name, _ in source.blocks
        if taken[name] > 1 or (source.part.module, name) in qualified
    }


def _renamed(text: str, source: _Source, new: Mapping[tuple[str, str], str]) -> str:
    """Give the names in a part's text those of the program."""
    own = {name: renamed for (module, name), renamed in new.items() if module == source.part.module}
    taken = {name: new[place] for name, place in _imported(source, new)}
    lines, depth = text.splitlines(keepends=True), 0
    tokens = list(tokenize.generate_tokens(io.StringIO(text).readline))
    changes = []
    for k, token in enumerate(tokens):
        depth += (token.string in ("(", "[", "{")) - (token.string in (")", "]", "}"))
        before, after = tokens[k - 1].string if k else "", tokens[k + 1].string if k + 1 < len(tokens) else ""
        if token.type != tokenize.NAME or before == "." or (depth and after == "="):
            continue
        if after == "." and token.string in source.aliases:
            place = (source.aliases[token.string], tokens[k + 2].string)
            if place in new:
                changes.append((token.start, tokens[k + 2].end, new[place]))
        elif token.string in own or token.string in taken:
            changes.append((token.start, token.end, own.get(token.string) or taken[token.string]))
    for (row, begin), (_, end), name in reversed(changes):
        lines[row - 1] = lines[row - 1][:begin] + name + lines[row - 1][end:]
    return "".join(lines)


def _imported(source: _Source, new: Mapping[tuple[str, str], str]) -> Iterator[tuple[str, tuple[str, str]]]:
    """Yield the names that a part imports from others under which they are renamed, with their places."""
    for alias, full in source.aliases.items():
        module, _, name = full.rpartition(".")
        if (module, name) in new:
            yield alias, (module, name)
