"""What a worker has at hand: the models, selections and data that many cells of a study share."""

from __future__ import annotations

from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

from lce.config import Kind
from lce.evaluation.audit_inputs import open_audit, open_direction_audit
from lce.evaluation.direction_audit import DirectionAudit
from lce.evaluation.direction_moves import Unedited, unedited
from lce.evaluation.evaluator import Evaluator
from lce.evaluation.head_audit import HeadAudit
from lce.evaluation.site_edits import Measured, SiteEdits
from lce.localize.feature_settings import FeatureSettings
from lce.localize.pair import Pair, find_model, open_pair
from lce.localize.selection import Selection
from lce.localize.weights import localize, mask_based
from lce.metrics.items import ItemMetric
from lce.models.clip import Clip, load_clip
from lce.models.kinds import kind_of
from lce.models.loading import load_language_model
from lce.study.cell_files import CellFiles
from lce.study.cells import Cell, settings_for
from lce.study.context import base_kind
from lce.study.downstream import Task, load_task
from lce.study.picture_inputs import audit_settings, direction_settings
from lce.study.settings import StudySettings

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class WorkerCache(CellFiles):
    """The files of a study's cells, and what the cells need, loaded once and kept for the next one."""

    def __init__(self, study: StudySettings, trainer_options: dict[str, Any]) -> None:
        super().__init__(study, trainer_options)
        self._task = lru_cache(maxsize=1)(self._load_task)
        self._pair = lru_cache(maxsize=1)(self._open_pair)
        self._model = lru_cache(maxsize=1)(self._load_model)
        self._selection = lru_cache(maxsize=2)(self._select)
        self._measured = lru_cache(maxsize=1)(self._measure)
        self._audit = lru_cache(maxsize=1)(self._open_audit)
        self._directions = lru_cache(maxsize=1)(self._open_directions)
        self._unedited: dict[str, ItemMetric] = {}

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        return load_language_model(self.study.base, self.study.trust_remote_code)[1]

    @cached_property
    def evaluator(self) -> Evaluator:
        return self._evaluator(self.tokenizer, base_kind(self.study))

    def _evaluator(self, tokenizer: PreTrainedTokenizerBase, kind: Kind) -> Evaluator:
        return Evaluator(settings_for(self.study, Cell("measure")), self.trainer_options, tokenizer, kind)

    @cached_property
    def of_features(self) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, Kind, Evaluator]:
        """The model whose features are edited, its tokenizer and kind, and what measures it."""
        study = self.study
        name = study.features.model or study.base
        model, tokenizer = load_language_model(name, study.trust_remote_code)
        kind = kind_of(name, model.config) if study.features.model else base_kind(study)
        evaluator = self._evaluator(tokenizer, kind) if study.features.model else self.evaluator
        return model.requires_grad_(False), tokenizer, kind, evaluator

    @cached_property
    def clip(self) -> Clip:
        """The CLIP whose heads are edited."""
        name = self.study.heads.model or self.study.base
        return load_clip(name, self.study.heads.device, self.study.trust_remote_code)

    def task(self, name: str) -> Task:
        """A task of sentence pairs."""
        return self._task(name)

    def pair(self, cell: Cell) -> Pair:
        """The weights of the target and the reference of ``cell``."""
        return self._pair(cell.seed, cell.sparsity, cell.target, cell.reference)

    def model(self, cell: Cell) -> PreTrainedModel:
        """The target of ``cell``."""
        return self._model(self.pair(cell).target.folder)

    def selection(self, cell: Cell) -> Selection:
        """The informed selection of ``cell``."""
        key = cell.seed, cell.sparsity, cell.target, cell.reference
        return self._selection(key, cell.localization, cell.k, cell.last_layers)

    def measured(self, cell: Cell) -> Measured:
        """What measures edits of a model's features, chosen by the halves of the cell's seed."""
        return self._measured(cell.seed or 0)

    def _measure(self, seed: int) -> Measured:
        about = self.study.features
        settings = FeatureSettings(
            sae=about.sae, site=about.site, contexts=about.contexts, tokens=about.tokens, seed=seed
        )
        model, tokenizer, kind, evaluator = self.of_features
        edits = SiteEdits(settings, model, tokenizer, kind)
        found = Measured(evaluator, edits, before=self._unedited)
        self._unedited = found.before
        return found

    def audit(self, cell: Cell) -> HeadAudit:
        """The audit by the attribute of ``cell``, with its pictures, and what its first pass over them finds."""
        return self._audit(str(cell.attribute), cell.seed or 0)

    def _open_audit(self, attribute: str, seed: int) -> HeadAudit:
        return open_audit(audit_settings(self.study, attribute, seed), self.clip)

    def directions(self, cell: Cell) -> tuple[DirectionAudit, Unedited]:
        """The audit of directions with the seed of ``cell``, and what the unedited model does."""
        return self._directions(cell.seed or 0)

    def _open_directions(self, seed: int) -> tuple[DirectionAudit, Unedited]:
        audit = open_direction_audit(direction_settings(self.study, seed))
        return audit, unedited(audit)

    def _load_task(self, name: str) -> Task:
        return load_task(name, self.study.data.downloads)

    def _open_pair(self, seed: int, sparsity: float, target: str, reference: str) -> Pair:
        settings = settings_for(self.study, Cell("edit", seed, sparsity))
        return open_pair(find_model(target, settings), find_model(reference, settings), settings)

    def _load_model(self, folder: str) -> PreTrainedModel:
        return load_language_model(folder, self.study.trust_remote_code)[0]

    def _select(
        self, key: tuple[Any, ...], localization: str, k: float | str | None, last_layers: int | None
    ) -> Selection:
        pair = self._pair(*key)
        size = self.study.k if k is None else mask_based(*pair).count if isinstance(k, str) else k
        sized = {"count": size} if isinstance(size, int) else {"share": size}
        selection = localize(localization, *pair, **sized)
        return selection if last_layers is None else selection.in_last_layers(last_layers)
