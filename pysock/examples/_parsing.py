"""What a Python file defines, for the example ``outlines``: a module that its worker processes can import."""

from __future__ import annotations

import ast


def outline(source: bytes) -> bytes:
    """Return the names of all functions and classes in this source, a line each, indented as they are nested."""
    lines: list[str] = []
    _add(ast.parse(source), "", lines)
    return "\n".join(lines).encode()


def _add(node: ast.AST, indent: str, lines: list[str]) -> None:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            word = "class" if isinstance(child, ast.ClassDef) else "def"
            lines.append(f"{indent}{word} {child.name}")
            _add(child, indent + "    ", lines)
        else:
            _add(child, indent, lines)
