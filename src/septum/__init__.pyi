from . import metrics as metrics
from .api import evaluate as evaluate
from .api import train as train
from .config import AugmentConfig as AugmentConfig
from .config import TrainConfig as TrainConfig
from .config import TtaConfig as TtaConfig
from .config import UNetConfig as UNetConfig
from .config import WeightMapConfig as WeightMapConfig
from .config import falk_2019 as falk_2019
from .config import paper_2015 as paper_2015
from .config import release_2015 as release_2015
from .core.unet import UNet as UNet
from .core.weight_map import separation_weight as separation_weight
from .core.weight_map import weight_map as weight_map
from .data.dataset import load_dataset as load_dataset
from .errors import SeptumError as SeptumError
from .model.model import Model as Model
from .model.model import load as load
from .model.predict import Prediction as Prediction

__version__: str
