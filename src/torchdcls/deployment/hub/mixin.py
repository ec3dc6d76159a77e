"""The mixin by which a class of models is saved, loaded and pushed to the Hub."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Self

from huggingface_hub import ModelCard, ModelCardData, PyTorchModelHubMixin
from safetensors.torch import load_model, save_model
from torch import nn

from ...conversion import parameter_count
from ...nn import DclsLayer
from .arguments import Arguments, Constructor
from .card import TEMPLATE, Results, as_list, kernel_rows
from .repository import CONFIG, FOLDER, NOT_STORED, WEIGHTS, downloaded, read_config, read_header

_LONGEST_REASON = 200  # in characters


class DclsHubMixin(  # type: ignore[misc]
    PyTorchModelHubMixin,
    library_name="torchdcls",
    tags=["torchdcls", "dcls", "dilated-convolution-with-learnable-spacings"],
    paper_url="https://arxiv.org/abs/2112.03740",
    model_card_template=TEMPLATE,
):
    """`from_pretrained`, `save_pretrained` and `push_to_hub` for `class Net(nn.Module, DclsHubMixin)`.

    Arguments of the constructor are stored as JSON. Pass arguments that JSON cannot hold, such as tensors, to
    `from_pretrained` again. Changes of layers, such as `torchdcls.convert`, belong in `__init__`. A class may say
    `class Net(nn.Module, DclsHubMixin, license="mit", pipeline_tag="image-classification")` for its model cards, and
    `coders={torch.dtype: (encode, decode)}` for arguments of other types.

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

    _made_with: Arguments

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Notes the arguments of the constructor."""
        instance: Self = super().__new__(cls)
        instance._made_with = cls._constructor().called(args, kwargs)
        instance._hub_mixin_config = instance._made_with.stored
        return instance

    @classmethod
    def _constructor(cls) -> Constructor:
        return Constructor(cls, cls._hub_mixin_coders)

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
            save_directory: The folder, made if it does not exist.
            results: Scores for the card, as `Result`s or as {"ImageNet-1k top-1": 82.5}: data, space, metric.
            license: The license's id on the Hub, such as "mit"; None for the class's own, if any.
            description: First sentences of the card; None for a sentence about the layers.
            config: Stored instead of the constructor's arguments; None for these.
            model_card_kwargs: Further arguments of `generate_model_card`.

        Raises:
            ValueError: The constructor's arguments cannot be stored, and there is no `config`.
        """
        if config is None:
            self._constructor().check_stored(self._made_with)
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
        """Uploads the files of `save_pretrained` in one commit.

        Args:
            repo_id: The repository, "user/name", made if it does not exist.
            results, license, description: See `save_pretrained`.
            commit_message, private, token, branch, create_pr: As in huggingface_hub.

        Returns:
            The address of the commit.
        """
        about = {"results": results, "license": license, "description": description, "repo_id": repo_id}
        address = super().push_to_hub(
            repo_id,
            commit_message=commit_message,
            private=private,
            token=token,
            branch=branch,
            create_pr=create_pr,
            model_card_kwargs=about,
        )
        return str(address)

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
            model_kwargs: Arguments of the class, instead of those that are stored.

        Raises:
            ValueError: There is no such folder or repository, a file is missing or broken, or it is of another class.
        """
        constructor = cls._constructor()
        constructor.check_given(model_kwargs)
        optional = not constructor.needs_config(model_kwargs)
        folder = Path(pretrained_model_name_or_path)
        if not folder.is_dir():
            folder = downloaded(
                str(pretrained_model_name_or_path),
                config_is_optional=optional,
                force_download=force_download,
                token=token,
                cache_dir=cache_dir,
                local_files_only=local_files_only,
                revision=revision,
            )
        config = read_config(folder / CONFIG, optional=optional)
        arguments = constructor.arguments(config, model_kwargs, folder)
        elements, not_stored = read_header(folder / WEIGHTS)
        # Where it was made with what JSON cannot hold, the configuration has the default.
        for name in not_stored:
            if name not in model_kwargs:
                raise ValueError(
                    f"{name}: expected to be given to from_pretrained, as JSON could not hold what {cls.__name__} was "
                    "made with"
                )
        model = cls._made(arguments, folder / CONFIG, elements, model_kwargs.keys())
        assert isinstance(model, nn.Module)
        try:
            load_model(model, folder / WEIGHTS, strict=True, device=map_location)
        except RuntimeError as error:
            # A line may name every parameter of the model.
            lines = [line.strip().rstrip(".:")[:_LONGEST_REASON] for line in str(error).splitlines()]
            raise ValueError(
                f"{FOLDER}: the weights in '{folder / WEIGHTS}' do not fit the model that {cls.__name__} makes from "
                f"{CONFIG} ({'; '.join(lines[1:3] or lines)}); calls that change layers, such as torchdcls.convert, "
                "belong in __init__"
            ) from None
        return model.to(map_location).eval()

    @classmethod
    def _made(cls, arguments: Mapping[str, Any], file: Path, elements: int, given: Collection[str]) -> Self:
        """The model, before its weights are read.

        Args:
            arguments: Of the class, from the file and from the caller.
            file: The configuration.
            elements: Number of elements of the tensors beside it.
            given: Names of the arguments that are the caller's.
        """
        return cls(**arguments)

    def _save_pretrained(self, save_directory: Path) -> None:
        missing = self._made_with.not_stored
        about = {"format": "pt"} | ({NOT_STORED: ",".join(missing)} if missing else {})
        save_model(self, str(save_directory / WEIGHTS), metadata=about)  # type: ignore[arg-type]

    def generate_model_card(  # type: ignore[override]
        self,
        *,
        results: Results = (),
        license: str | None = None,
        description: str | None = None,
        repo_id: str | None = None,
    ) -> ModelCard:
        """The model card: what the model is, its kernels, its scores, how to load it, and whom to cite.

        A `model_card_template` of the class's own gets what huggingface_hub's gets, and what model_card.md uses.

        Args:
            results, license, description: See `save_pretrained`.
            repo_id: Where it will be, "user/name".
        """
        assert isinstance(self, nn.Module)
        info, kind, scores = self._hub_mixin_info, type(self), as_list(results)
        name = (repo_id or kind.__name__).rpartition("/")[2]
        data = ModelCardData(**vars(info.model_card_data))
        data.license = license or data.license
        data.pipeline_tag = data.pipeline_tag or self._pipeline_tag()
        if scores:
            data.model_name, data.eval_results = name, [score.entry() for score in scores]
        layers = {path: layer for path, layer in self.named_modules() if isinstance(layer, DclsLayer)}
        card: ModelCard = ModelCard.from_template(
            data,
            template_str=info.model_card_template,
            repo_url=info.repo_url,
            paper_url=info.paper_url,
            docs_url=info.docs_url,
            name=name,
            description=description,
            subject=self._subject(),
            layers=len(layers),
            parameters=f"{parameter_count(self):,}",
            kernels=kernel_rows(layers),
            shared=len({layer.position for layer in layers.values()}) < len(layers),
            results=scores,
            class_name=kind.__qualname__,
            module=__package__ if kind.__module__.startswith(f"{__package__}.") else kind.__module__,
            not_stored=self._made_with.not_stored,
            where=repo_id or "path/to/this/folder",
        )
        return card

    def _subject(self) -> str:
        return f"`{type(self).__name__}`, a PyTorch model"

    def _pipeline_tag(self) -> str | None:
        return None
