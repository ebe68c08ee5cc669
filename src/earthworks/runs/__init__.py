"""The run folder: crash-safe files, metrics, environment, progress, and the error class."""

from earthworks.runs.environment import environment as environment
from earthworks.runs.errors import EarthworksError as EarthworksError
from earthworks.runs.files import inside as inside
from earthworks.runs.files import read_regular as read_regular
from earthworks.runs.files import sha256 as sha256
from earthworks.runs.files import write_bytes as write_bytes
from earthworks.runs.folder import RunFolder as RunFolder
from earthworks.runs.json_files import json_text as json_text
from earthworks.runs.json_files import read_json as read_json
from earthworks.runs.json_files import read_result as read_result
from earthworks.runs.json_files import write_json as write_json
from earthworks.runs.json_files import write_result as write_result
from earthworks.runs.lock import lock as lock
from earthworks.runs.manifest import new_folder as new_folder
from earthworks.runs.manifest import remove_folder as remove_folder
from earthworks.runs.manifest import verify_manifest as verify_manifest
from earthworks.runs.metrics import Metrics as Metrics
from earthworks.runs.metrics import read_metrics as read_metrics
from earthworks.runs.progress import Progress as Progress
from earthworks.runs.terminal import shown as shown
from earthworks.runs.yaml_files import parse_yaml as parse_yaml
from earthworks.runs.yaml_files import read_yaml as read_yaml
