"""What the methods that train a network (rqvae, rqkmeans_plus) may be told. Read without torch, for --help."""

from dataclasses import dataclass

from mimigenrec.cli import arg


@dataclass
class Training:
    epochs: int = arg(
        "passes over the items (rqvae, rqkmeans_plus)", default=200, least=1
    )  # ours, Industrial MiniLM vectors
    batch_size: int = arg("items per step", default=1024, least=1)  # TIGER's and LC-Rec's
    learning_rate: float = arg("learning rate of AdamW", default=1e-3, above=0)  # LC-Rec's
    hidden: list[int] = arg(
        "encoder widths; the decoder mirrors them", factory=lambda: [512, 256, 128], least=1
    )  # TIGER's
    latent: int = arg("width of rqvae's codebooks", default=32, least=1)  # TIGER's
    commitment: float = arg("weight of the commitment loss", default=0.25, least=0)  # TIGER's
    decay: float = arg(
        "decay of the running means that are the codebooks", default=0.9, least=0, below=1
    )  # ours; 0.99 lags on small sets
    device: str = arg("where rqvae and rqkmeans_plus train; auto: the first GPU, else the CPU", default="auto")
