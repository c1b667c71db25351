from .batch_loss import loss_terms as loss_terms
from .config import TrainingConfig as TrainingConfig
from .config import read_config as read_config
from .training_run import train as train
