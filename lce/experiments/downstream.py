from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class DownstreamSettings:
    tasks: list[str] = field(default_factory=list)
    """Tasks"""
    steps: int = 500
    batch_size: int = 32
