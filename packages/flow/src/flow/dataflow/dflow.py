"""The kernel and its loader, under the path that scripts use."""

from flow_core.kernel.kernel import DataFlowKernel as DataFlowKernel
from flow_core.kernel.loaded import DataFlowKernelLoader as DataFlowKernelLoader
