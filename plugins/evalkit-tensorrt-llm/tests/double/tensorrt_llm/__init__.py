"""A stand-in for TensorRT LLM with the parts of its API that the engine uses, and no others.

What they are is in ../../tensorrt_llm_api.json. The model behind it has next-token scores that are a hash of all tokens
before. It behaves as the library's source says: prompts whose beginning is in the cache have logits of the rest alone,
stop words are kept or cut by `include_stop_str_in_output`, results are awaited on the loop that they were asked on.
"""

from tensorrt_llm.llm import LLM
from tensorrt_llm.params import SamplingParams

__version__ = "1.2.1"
__all__ = ["LLM", "SamplingParams"]
