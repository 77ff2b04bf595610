"""Reading data in batches: ``DataLoader(ArrayDataset(x, y), RandomSampler(...))``."""

from mgec.data.dataloader import Collator, DataLoader
from mgec.data.dataset import ArrayDataset, Dataset
from mgec.data.sampler import RandomSampler, Sampler, SequentialSampler

__all__ = [
    "ArrayDataset",
    "Collator",
    "DataLoader",
    "Dataset",
    "RandomSampler",
    "Sampler",
    "SequentialSampler",
]
