"""The zoo family against the original PyTorch definition (golden numbers), the published counts and bad checkpoints."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from edgewright import metrics
from edgewright.errors import EdgewrightError
from edgewright.options import build
from edgewright.zoo import efficientnet_lite as zoo
from edgewright.zoo.efficientnet_lite.architecture import blocks, round_channels, same_padding
from tests.golden import efficientnet_lite as golden
