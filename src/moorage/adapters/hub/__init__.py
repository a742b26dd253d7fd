"""The model Hub, read with `huggingface_hub`: metadata only, never weights.

`client` is the port, `wire` the calls, `profile` what is made of them: `files` chooses the weights among a
repository's files, `tensors` and `attention` read headers and configs. `failures` tells the Hub's errors
apart, `flights` keeps answers for a moment.
"""

from moorage.adapters.hub.client import HuggingFaceHub, Limits

__all__ = ["HuggingFaceHub", "Limits"]
