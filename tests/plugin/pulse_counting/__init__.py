"""A package of a user: it counts the pulses of 1-D signals, with mtl_ray and without a change to
it.

A config says ``plugins: [pulse_counting]``. Torch is imported only where a network is built.
"""

from mtl_ray.plugin import Plugin
from pulse_counting.configs import ConvBackbone, CountHead, NoiseMethod
from pulse_counting.engine import ReferenceEngine
from pulse_counting.pulses import PULSES, PulseFiles
from pulse_counting.signal import SignalCanvas

PLUGIN = Plugin(
    annotations=(PULSES,),
    inputs=(SignalCanvas,),
    sources=(PulseFiles,),
    backbones=(ConvBackbone,),
    heads=(CountHead,),
    methods=(NoiseMethod,),
    engines=(ReferenceEngine,),
)
