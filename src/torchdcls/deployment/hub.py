"""Models with DCLS layers on the Hugging Face Hub, or in a folder of the same form.

A folder holds config.json, what the model's class is called with; model.safetensors, the parameters, each once however
many layers share it; and README.md, the model card. Nothing is unpickled.
"""

import inspect
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, is_dataclass
from fnmatch import fnmatch
from math import prod
from pathlib import Path
from typing import Any, Self

from torch import Tensor, nn

from .._checks import nearest
from .._extras import needed_by
from ..conversion import convert, parameter_count
from ..conversion.select import stages
from ..nn import DclsLayer
from ..profiles import PROFILES, Profile, description
from .arguments import dataclass_of, difference, made_again, may_be_plain, resolved

with needed_by("torchdcls.deployment.hub", "train"):
    from huggingface_hub import (
        EvalResult,
        ModelCard,
        ModelCardData,
        PyTorchModelHubMixin,
        get_hf_file_metadata,
        hf_hub_download,
        hf_hub_url,
    )
    from huggingface_hub.errors import (
        EntryNotFoundError,
        HfHubHTTPError,
        HFValidationError,
        RepositoryNotFoundError,
    )
    from safetensors import SafetensorError, safe_open
    from safetensors.torch import load_model, save_model

    from ..models.named import timm_model
    from ..models.stored import check_stored, making

_CONFIG, _WEIGHTS = "config.json", "model.safetensors"
_NOT_STORED = "not_stored"
_FOLDER = "pretrained_model_name_or_path"
_LONGEST_REASON = 200  # in characters
_PATIENCE = 5.0  # for the Hub's answer, in seconds
# What metrics are called on the Hub, by what they are called in tables.
_METRICS = {"top-1": "accuracy", "top-5": "accuracy", "acc@1": "accuracy", "acc@5": "accuracy", "miou": "mean_iou"}


@dataclass(frozen=True)
class Result:
    """A score of a model, as the Hub's model-index has it.

    Args:
        dataset: The data's id on the Hub, such as "imagenet-1k".
        metric: The metric's id, such as "accuracy".
        value: The score.
        dataset_name: What people call the data; None for its id.
        metric_name: What people call the metric, such as "top-1"; None for its id.
        split: The split that was scored.
        task: The task's id.
    """

    dataset: str
    metric: str
    value: float
    dataset_name: str | None = None
    metric_name: str | None = None
    split: str | None = None
    task: str = "image-classification"


Results = Mapping[str, float] | Sequence[Result]


class DclsHubMixin(  # type: ignore[misc]
    PyTorchModelHubMixin,
    library_name="torchdcls",
    tags=["torchdcls", "dcls", "dilated-convolution-with-learnable-spacings"],
    paper_url="https://arxiv.org/abs/2112.03740",
):
    """`from_pretrained`, `save_pretrained` and `push_to_hub` for `class Net(nn.Module, DclsHubMixin)`.

    Arguments of the constructor are stored as JSON; those that JSON cannot hold, such as tensors, have to be given to
    `from_pretrained` again. What changes layers, such as `torchdcls.convert`, belongs into `__init__`. A class may say
    `class Net(nn.Module, DclsHubMixin, license="mit", pipeline_tag="image-classification")` for its model cards.

    Example:
        >>> import tempfile
        >>> import torch
        >>> from torch import nn
        >>> from torchdcls import Dcls2d
        >>> class Net(nn.Module, DclsHubMixin):
        ...     def __init__(self, width: int = 8) -> None:
        ...         super().__init__()
        ...         self.conv = Dcls2d(3, width, 4, dilated_kernel_size=9, padding="same")
        ...     def forward(self, images):
        ...         return self.conv(images)
        >>> net, images = Net(width=4).eval(), torch.randn(1, 3, 16, 16)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     net.save_pretrained(folder)
        ...     torch.equal(Net.from_pretrained(folder)(images), net(images))
        True
    """

    _not_stored: list[str]
    _clashing: list[str]  # entries of a `config` that other arguments are called like
    _dataclasses: dict[str, Any]  # arguments

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Notes what the constructor was called with. As on the Hub, the entries of a `config` stand by themselves."""
        names = list(cls._hub_mixin_init_parameters)[1:]
        given = {**dict(zip(names, args, strict=False)), **kwargs}
        config = given.pop("config", None)
        instance: Self = super().__new__(cls, **given)  # which would store nothing beside a dataclass
        if cls._is_jsonable(config) and isinstance(entries := cls._encode_arg(config), dict):
            others: Any = instance._hub_mixin_config or {}
            instance._hub_mixin_config = {**others, **entries}
        given["config"] = config
        made_with = {**{name: entry.default for name, entry in cls._hub_mixin_init_parameters.items()}, **given}
        if "config" in names and "config" not in {*names[: len(args)], *kwargs}:
            made_with["config"] = cls._hub_mixin_init_parameters["config"].default
        stored = {name: value for name, value in made_with.items() if cls._is_jsonable(value)}
        entries = cls._encode_arg(stored.get("config"))
        instance._clashing = sorted(made_with.keys() & entries) if isinstance(entries, dict) else []
        instance._dataclasses = {
            name: value
            for name, value in stored.items()
            if is_dataclass(value) and not isinstance(value, (type, Profile, *cls._hub_mixin_jsonable_custom_types))
        }
        instance._not_stored = sorted(name for name, value in given.items() if not cls._is_jsonable(value))
        return instance

    @classmethod
    def _is_jsonable(cls, value: Any) -> bool:
        if isinstance(value, Profile):
            return PROFILES.get(value.name) == value
        if is_dataclass(value) and not isinstance(value, (type, *cls._hub_mixin_jsonable_custom_types)):
            value = asdict(value)  # type: ignore[arg-type]
        return bool(super()._is_jsonable(value))

    @classmethod
    def _encode_arg(cls, arg: Any) -> Any:
        # A name makes the same layers.
        return arg.name if isinstance(arg, Profile) else super()._encode_arg(arg)

    @classmethod
    def _decode_arg(cls, expected_type: Any, value: Any) -> Any:
        kind = dataclass_of(expected_type)
        if kind is None or issubclass(kind, (Profile, *cls._hub_mixin_jsonable_custom_types)):
            return super()._decode_arg(expected_type, value)
        return made_again(kind, value) if isinstance(value, dict) else value

    def _check_arguments(self) -> None:
        """Refuses arguments that `from_pretrained` would not make again.

        Raises:
            ValueError: There are some.
        """
        name = type(self).__name__
        if self._clashing:
            raise ValueError(
                f"config: expected entries that no other argument of {name} is called like, as config.json has both "
                f"side by side, got {self._clashing[0]!r} twice; rename one"
            )
        for argument, value in self._dataclasses.items():
            annotation = resolved(type(self).__init__)[argument].annotation
            if may_be_plain(annotation):
                continue
            kind = type(value).__name__
            try:
                again = self._decode_arg(annotation, json.loads(json.dumps(asdict(value))))
            except Exception as error:
                raise ValueError(
                    f"{argument}: expected a dataclass that can be made again of its fields, got {kind} "
                    f"({type(error).__name__}: {error})"
                ) from None
            where = difference(value, again, argument)
            if where is not None:
                raise ValueError(
                    f"{where}: expected an annotation that says which dataclass from_pretrained is to make, and names "
                    f"that typing.get_type_hints finds, got {annotation!r} for {argument} of {name}; define the "
                    "dataclass in a module, and annotate the argument or field with it"
                )

    def save_pretrained(  # type: ignore[override]
        self,
        save_directory: str | Path,
        *,
        results: Results = (),
        license: str | None = None,
        description: str | None = None,
        config: dict[str, Any] | None = None,
        model_card_kwargs: dict[str, Any] | None = None,
    ) -> None:
        """Writes config.json, model.safetensors and, if there is none yet, a README.md into a folder.

        Args:
            save_directory: The folder, made where there is none.
            results: Scores for the card, as `Result`s or as {"ImageNet-1k top-1": 82.5}: data, space, metric.
            license: The licence's id on the Hub, such as "mit"; None for the class's own, if any.
            description: What the card says first; None for a sentence about the layers.
            config: In the place of the constructor's arguments; None for these.
            model_card_kwargs: The arguments of `generate_model_card`, where `push_to_hub` has them.

        Raises:
            ValueError: `from_pretrained` could not make the constructor's arguments again, and there is no `config`.
        """
        if config is None:
            self._check_arguments()
            if self._hub_mixin_config is None:
                config = {}  # a file for every model
        about = {"results": results, "license": license, "description": description, **(model_card_kwargs or {})}
        super().save_pretrained(save_directory, config=config, model_card_kwargs=about)

    def push_to_hub(  # type: ignore[override]
        self,
        repo_id: str,
        *,
        results: Results = (),
        license: str | None = None,
        description: str | None = None,
        commit_message: str = "Model made with torchdcls",
        private: bool | None = None,
        token: str | None = None,
        branch: str | None = None,
        create_pr: bool | None = None,
    ) -> str:
        """Uploads what `save_pretrained` writes, in one commit.

        Args:
            repo_id: The repository, "user/name", made where there is none.
            results, license, description: See `save_pretrained`.
            commit_message, private, token, branch, create_pr: As in huggingface_hub.

        Returns:
            The address of the commit.
        """
        about = {"results": results, "license": license, "description": description, "repo_id": repo_id}
        return str(
            super().push_to_hub(
                repo_id,
                commit_message=commit_message,
                private=private,
                token=token,
                branch=branch,
                create_pr=create_pr,
                model_card_kwargs=about,
            )
        )

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        force_download: bool = False,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        revision: str | None = None,
        map_location: str = "cpu",
        **model_kwargs: Any,
    ) -> Self:
        """The model of a folder or of a repository on the Hub, in evaluation mode.

        Args:
            pretrained_model_name_or_path: A folder, or a repository's "user/name".
            force_download, token, cache_dir, local_files_only, revision: As in huggingface_hub.
            map_location: Where parameters are read to.
            model_kwargs: Arguments of the class, in the place of those that are stored.

        Raises:
            ValueError: There is no such folder or repository, a file is missing or broken, or it is of another class.
        """
        names = cls._hub_mixin_init_parameters = resolved(cls.__init__)
        anything = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in names.values())
        for name in model_kwargs:
            if name not in names and not anything:
                raise ValueError(f"{name}: expected an argument of {cls.__name__}; {nearest(name, list(names)[1:])}")
        # The Hub's own class writes no configuration where there is nothing to store, say for lack of arguments.
        optional = all(
            name == "config"
            or parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
            or (name not in cls._hub_mixin_jsonable_default_values and parameter.default is not parameter.empty)
            for name, parameter in list(names.items())[1:]
        )
        folder = Path(pretrained_model_name_or_path)
        if not folder.is_dir():
            folder = _downloaded(
                str(pretrained_model_name_or_path),
                optional,
                revision,
                cache_dir,
                force_download,
                token,
                local_files_only,
            )
        config = {} if optional and not (folder / _CONFIG).exists() else _read_config(folder)
        own = {name: value for name, value in config.items() if name not in names}
        kind = dataclass_of(names["config"].annotation) if "config" in names else None
        entries = {entry.name for entry in fields(kind)} if kind is not None else set()
        anything = anything or ("config" in names and not entries)
        foreign = [] if anything else [name for name in own if name not in entries]
        if foreign:
            raise ValueError(
                f"{_FOLDER}: expected a model that {cls.__name__} saved, got '{folder}', whose "
                f"{_CONFIG} has {', '.join(map(repr, foreign[:3]))}, which {cls.__name__} does not take"
            )
        if not (folder / _WEIGHTS).is_file():
            raise ValueError(f"{_FOLDER}: expected a folder with {_WEIGHTS}, got '{folder}' without")
        # Where it was made with what JSON cannot hold, the configuration has the default.
        missing = [name for name in _not_stored(folder / _WEIGHTS) if name not in model_kwargs]
        if missing:
            raise ValueError(
                f"{missing[0]}: expected to be given to from_pretrained, as JSON could not hold what "
                f"{cls.__name__} was made with"
            )
        if "config" in names and "config" not in model_kwargs:
            default, annotation = names["config"].default, names["config"].annotation
            given = bool(own) or default is inspect.Parameter.empty
            model_kwargs["config"] = cls._decode_arg(annotation, own) if given else default
        cls._check_config(folder / _CONFIG, {name: config[name] for name in config if name not in model_kwargs})
        if not (folder / _CONFIG).exists():  # for which the Hub's class prints a warning
            return cls._from_pretrained(
                model_id=str(folder),
                revision=None,
                cache_dir=None,
                force_download=False,
                local_files_only=True,
                token=None,
                map_location=map_location,
                **model_kwargs,
            )
        model: Self = super().from_pretrained(folder, map_location=map_location, **model_kwargs)
        return model

    @classmethod
    def _check_config(cls, path: Path, config: Mapping[str, Any]) -> None:
        """Refuses arguments that a class must not take from a file."""

    @classmethod
    def _made(cls, folder: Path, arguments: Mapping[str, Any]) -> Self:
        """The model of a folder, whose weights are read afterwards."""
        return cls(**arguments)

    def _save_pretrained(self, save_directory: Path) -> None:
        about = {"format": "pt"} | ({_NOT_STORED: ",".join(self._not_stored)} if self._not_stored else {})
        save_model(self, str(save_directory / _WEIGHTS), metadata=about)  # type: ignore[arg-type]

    @classmethod
    def _from_pretrained(
        cls,
        *,
        model_id: str,
        revision: str | None,
        cache_dir: str | Path | None,
        force_download: bool,
        local_files_only: bool,
        token: str | bool | None,
        map_location: str = "cpu",
        strict: bool = True,
        **model_kwargs: Any,
    ) -> Self:
        path = Path(model_id) / _WEIGHTS
        model = cls._made(Path(model_id), model_kwargs)
        assert isinstance(model, nn.Module)
        try:
            load_model(model, path, strict=strict, device=map_location)
        except RuntimeError as error:
            # A line may name every parameter of the model.
            lines = [line.strip().rstrip(".:")[:_LONGEST_REASON] for line in str(error).splitlines()]
            reason = "; ".join(lines[1:3] or lines)
            raise ValueError(
                f"{_FOLDER}: the weights in '{path}' do not fit what {cls.__name__} makes of "
                f"{_CONFIG} ({reason}); what changes layers, such as torchdcls.convert, belongs into __init__"
            ) from None
        model.to(map_location).eval()
        return model

    def generate_model_card(  # type: ignore[override]
        self,
        *,
        results: Results = (),
        license: str | None = None,
        description: str | None = None,
        repo_id: str | None = None,
    ) -> ModelCard:
        """The model card: what the model is, its kernels, its scores, how to load it, and whom to cite.

        Args:
            results, license, description: See `save_pretrained`.
            repo_id: Where it will be, "user/name".
        """
        assert isinstance(self, nn.Module)
        name = (repo_id or type(self).__name__).rpartition("/")[2]
        scores = _results(results)
        data = ModelCardData(**{**vars(self._hub_mixin_info.model_card_data), **self._card_data()})
        if license is not None:
            data.license = license
        if scores:
            data.model_name = name
            data.eval_results = [
                EvalResult(
                    task_type=score.task,
                    dataset_type=score.dataset,
                    dataset_name=score.dataset_name or score.dataset,
                    dataset_split=score.split,
                    metric_type=score.metric,
                    metric_value=score.value,
                    metric_name=score.metric_name or score.metric,
                )
                for score in scores
            ]
        parts = [
            f"---\n{data.to_yaml()}\n---\n\n# {name}\n",
            f"{description or self._sentence()}\n",
            f"{parameter_count(self):,} parameters, each counted once however many layers share it.\n",
            _kernel_section(self),
            _result_section(scores),
            f"## Use\n\n```python\n{self._use(repo_id or 'path/to/this/folder')}\n```\n",
            _CITATION if any(isinstance(module, DclsLayer) for module in self.modules()) else "",
        ]
        return ModelCard("\n".join(part for part in parts if part))

    def _card_data(self) -> dict[str, Any]:
        """What this model's card says beside what its class's do."""
        return {}

    def _sentence(self) -> str:
        layers = sum(isinstance(module, DclsLayer) for module in self.modules())  # type: ignore[attr-defined]
        if layers == 0:
            return f"`{type(self).__name__}`, a PyTorch model."
        return (
            f"`{type(self).__name__}`, a PyTorch model with {layers} {'layer' if layers == 1 else 'layers'} of "
            "[Dilated Convolution with Learnable Spacings](https://arxiv.org/abs/2112.03740): large kernels made of a "
            "few elements whose positions are learned."
        )

    def _use(self, where: str) -> str:
        kind = type(self)
        module = "the module that defines it" if kind.__module__ == "__main__" else kind.__module__
        lines = [f"from {module} import {kind.__qualname__}", ""] if module == kind.__module__ else [f"# from {module}"]
        extra = "".join(f", {name}=..." for name in self._not_stored)
        return "\n".join([*lines, f'model = {kind.__name__}.from_pretrained("{where}"{extra})'])


class TimmModel(nn.Module, DclsHubMixin):
    """A model of timm, converted if asked to, that can be saved, loaded and pushed to the Hub.

    Args:
        model_name: Any of timm's names, those of `torchdcls.models` included.
        conversion: Arguments of `torchdcls.convert`, plain values all of them: `where` is a pattern of layers' names
            such as "*.conv2", or a list of them. None: timm's own layers.
        num_classes: None for the model's own.
        model_args: What else timm makes the model with.
        pretrained: Whether to start from timm's weights; it is not stored, as a saved model has its own.

    Attributes:
        model: timm's.

    Raises:
        ValueError: timm has no such model, or an argument is wrong.

    Example:
        >>> conversion = dict(dilated_kernel_size=17, kernel_count="iso", interpolation="bilinear")
        >>> model = TimmModel("convnext_atto", conversion=conversion, num_classes=5)
        >>> model.conversion
        {'dilated_kernel_size': 17, 'kernel_count': 29, 'interpolation': 'bilinear'}
    """

    def __init__(
        self,
        model_name: str,
        *,
        conversion: Mapping[str, Any] | None = None,
        num_classes: int | None = None,
        model_args: Mapping[str, Any] | None = None,
        pretrained: bool = False,
    ) -> None:
        super().__init__()
        self.model = timm_model(model_name, num_classes=num_classes, pretrained=pretrained, model_args=model_args)
        self.model_name = model_name
        stored = None
        if conversion is not None:
            arguments = _conversion(conversion)
            patterns = arguments.pop("where", None)
            if patterns is not None:
                arguments["where"] = _matching([patterns] if isinstance(patterns, str) else list(patterns))
            report = convert(self.model, **arguments)
            # Weights are in the file: nothing has to be fitted to others when it is read.
            stored = {key: value for key, value in _conversion(conversion).items() if key not in ("init", "weight_std")}
            stored["kernel_count"] = report.kernel_count
        self.conversion = stored
        if type(self).__init__ is TimmModel.__init__:  # a subclass has arguments of its own
            self._hub_mixin_config = {
                "model_name": model_name,
                "conversion": stored,
                "num_classes": num_classes,
                "model_args": None if model_args is None else dict(model_args),
            }

    @classmethod
    def _check_config(cls, path: Path, config: Mapping[str, Any]) -> None:
        if "model_name" in config:  # not of a subclass with arguments of its own
            for arguments in (config.get("model_args") or {}, {"num_classes": config.get("num_classes")}):
                check_stored(_FOLDER, path, config["model_name"], arguments)

    @classmethod
    def _made(cls, folder: Path, arguments: Mapping[str, Any]) -> Self:
        if "pretrained" in cls._hub_mixin_init_parameters:
            arguments = {**arguments, "pretrained": False}  # its weights are in the folder
        with making(_FOLDER, folder / _CONFIG, _element_count(folder / _WEIGHTS)):
            return cls(**arguments)

    def forward(self, images: Tensor) -> Tensor:
        """As timm's model."""
        output: Tensor = self.model(images)
        return output

    def _card_data(self) -> dict[str, Any]:
        classes = getattr(self.model, "num_classes", 0)
        tags = sorted({*(self._hub_mixin_info.model_card_data.tags or ()), "timm"})
        return {"tags": tags, "pipeline_tag": "image-classification" if classes else "image-feature-extraction"}

    def _sentence(self) -> str:
        return f"timm's `{self.model_name}`: {super()._sentence()}"

    def _use(self, where: str) -> str:
        return "\n".join(
            [
                "from torchdcls.deployment.hub import TimmModel  # pip install torchdcls[train]",
                "",
                f'model = TimmModel.from_pretrained("{where}")',
            ]
        )


_CONVERSION = tuple(name for name in inspect.signature(convert).parameters if name != "model")


def _conversion(given: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of `convert` that JSON can hold.

    Raises:
        ValueError: It has no such argument, or JSON cannot hold its value.
    """
    found = {}
    for name, value in given.items():
        if name not in _CONVERSION:
            raise ValueError(
                f"conversion: expected arguments of torchdcls.convert, got {name!r}; {nearest(name, _CONVERSION)}"
            )
        if isinstance(value, Profile) and PROFILES.get(value.name) == value:
            value = value.name
        try:
            found[name] = json.loads(json.dumps(value))
        except TypeError:
            raise ValueError(
                f"conversion: expected plain values, which JSON can hold, got {name} of type {type(value).__name__}; "
                "write a class of your own with DclsHubMixin that makes it in __init__"
            ) from None
    return found


def _matching(patterns: Sequence[str]) -> Any:
    return lambda name, module: any(fnmatch(name, pattern) for pattern in patterns)


def _check_repository(expected: str, repo_id: str, revision: str | None) -> None:
    """Refuses at once what is no name of a repository, or more likely a folder's. A revision says that it is the Hub's.

    Raises:
        ValueError: It is such a name.
    """
    path = Path(repo_id).expanduser()
    repository = repo_id.count("/") == 1 and not repo_id.startswith((".", "~", "/"))
    folder = path.parent
    if repository and (revision is not None or not folder.is_dir()):
        return
    if path.exists():
        raise ValueError(f"{expected}, got '{repo_id}', which is a file; give the folder that it is in")
    meant = " (if the Hub's repository is meant, give its revision, such as 'main')" if repository else ""
    there = [str(folder / entry.name) for entry in folder.iterdir() if entry.is_dir()] if folder.is_dir() else []
    hint = nearest(str(path), there) if there else "a repository has a name such as 'user/name'"
    raise ValueError(f"{expected}, got '{repo_id}', which does not exist{meant}; {hint}")


def _unreachable(repo_id: str, revision: str | None, token: str | bool | None) -> str | None:
    """Why the Hub does not answer, None if it does. huggingface_hub itself would try for half a minute."""
    try:
        get_hf_file_metadata(hf_hub_url(repo_id, _WEIGHTS, revision=revision), token=token, timeout=_PATIENCE)
    except (HfHubHTTPError, EntryNotFoundError, HFValidationError):  # an answer, or a name that is none
        return None
    except Exception as error:  # each version has other ones for a network that is not there
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        return f"the Hub cannot be reached ({reason}), and it is not among the files that were downloaded before"
    return None


def _downloaded(
    repo_id: str,
    optional: bool,
    revision: str | None,
    cache_dir: str | Path | None,
    force_download: bool,
    token: str | bool | None,
    local_files_only: bool,
) -> Path:
    """The folder with the files of a repository, its configuration being `optional` or not.

    Raises:
        ValueError: There is no such repository or file, or it cannot be reached.
    """
    expected = f"{_FOLDER}: expected a folder, or a repository on the Hub"
    _check_repository(expected, repo_id, revision)
    unreachable = None if local_files_only else _unreachable(repo_id, revision, token)
    path = ""
    for file in (_CONFIG, _WEIGHTS):
        try:
            path = hf_hub_download(
                repo_id,
                file,
                revision=revision,
                cache_dir=cache_dir,
                force_download=force_download and unreachable is None,
                token=token,
                local_files_only=local_files_only or unreachable is not None,
            )
        except (EntryNotFoundError, RepositoryNotFoundError, HFValidationError, OSError) as error:
            if file == _CONFIG and optional and isinstance(error, EntryNotFoundError):
                continue
            reason = unreachable or str(error).strip().splitlines()[0]
            raise ValueError(f"{expected} with {file}, got '{repo_id}': {reason}") from None
    return Path(path).parent


def _not_stored(path: Path) -> list[str]:
    """Arguments that a model was made with and its configuration lacks.

    Raises:
        ValueError: The file cannot be read.
    """
    try:
        with safe_open(path, framework="pt") as file:
            about = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise ValueError(
            f"{_FOLDER}: '{path}' cannot be read ({str(error).rstrip('.')}); it is cut short, or no file of "
            "safetensors: save or download it again"
        ) from None
    return [name for name in about.get(_NOT_STORED, "").split(",") if name]


def _element_count(path: Path) -> int:
    with safe_open(path, framework="pt") as file:
        return sum(prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118  it is no mapping


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / _CONFIG
    if not path.is_file():
        raise ValueError(f"{_FOLDER}: expected a folder with {_CONFIG}, got '{folder}' without")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{_FOLDER}: '{path}' is no JSON ({error}); save the model again") from None
    if not isinstance(config, dict):
        raise ValueError(f"{_FOLDER}: expected an object in '{path}', got {config!r}")
    return config


def _results(results: Results) -> list[Result]:
    if not isinstance(results, Mapping):
        return list(results)
    found = []
    for name, value in results.items():
        dataset, space, metric = name.strip().rpartition(" ")
        if not space:
            raise ValueError(f"results: expected names of data and metric, such as 'ImageNet-1k top-1', got {name!r}")
        ids = dataset.lower().replace(" ", "-"), _METRICS.get(metric.lower(), metric.lower())
        found.append(Result(*ids, value, dataset_name=dataset, metric_name=metric))
    return found


def _kernel_section(model: nn.Module) -> str:
    layers = {name: module for name, module in model.named_modules() if isinstance(module, DclsLayer)}
    if not layers:
        return ""
    named = stages(layers)
    groups: dict[tuple[str, ...], list[DclsLayer]] = defaultdict(list)
    for name, layer in layers.items():
        axes = "all" if len(layer.learned_dims) == layer.dims else ", ".join(map(str, layer.learned_dims))
        look = (
            type(layer).__name__,
            str(layer.out_channels),
            "x".join(map(str, layer.dilated_kernel_size)),
            str(layer.kernel_count),
            description(layer.interpolation).replace("|", "/"),
            axes,
        )
        groups[named[name], *look].append(layer)
    lines = [
        "## Kernels\n",
        "| stage | layers | type | channels | kernel size | elements | interpolation | learned axes | parameters |",
        "| --- | ---: | --- | ---: | ---: | ---: | --- | --- | ---: |",
    ]
    for (stage, kind, channels, *rest), members in groups.items():
        own = {id(parameter): parameter.numel() for layer in members for parameter in layer.parameters()}
        cells = [stage, str(len(members)), kind, channels, *rest, f"{sum(own.values()):,}"]
        lines.append(f"| {' | '.join(cells)} |")
    shared = len({layer.position for layer in layers.values()}) < len(layers)
    if shared:
        lines.append("\nLayers of a stage share the positions (and spreads) of their elements.")
    return "\n".join(lines) + "\n"


def _result_section(scores: Sequence[Result]) -> str:
    if not scores:
        return ""
    lines = ["## Results\n", "| data | metric | value |", "| --- | --- | ---: |"]
    for score in scores:
        data = score.dataset_name or score.dataset
        split = "" if score.split is None else f" ({score.split})"
        lines.append(f"| {data}{split} | {score.metric_name or score.metric} | {score.value:g} |")
    return "\n".join(lines) + "\n"


_CITATION = r"""## Citation

```bibtex
@inproceedings{khalfaouihassani2023dcls,
  title     = {Dilated Convolution with Learnable Spacings},
  author    = {Khalfaoui-Hassani, Ismail and Pellegrini, Thomas and Masquelier, Timoth{\'e}e},
  booktitle = {International Conference on Learning Representations},
  year      = {2023},
  url       = {https://arxiv.org/abs/2112.03740}
}

@article{khalfaouihassani2023beyond,
  title   = {Dilated Convolution with Learnable Spacings: beyond bilinear interpolation},
  author  = {Khalfaoui-Hassani, Ismail and Pellegrini, Thomas and Masquelier, Timoth{\'e}e},
  journal = {ICML 2023 Workshop on Differentiable Almost Everything},
  year    = {2023},
  url     = {https://arxiv.org/abs/2306.00817}
}
```
"""
