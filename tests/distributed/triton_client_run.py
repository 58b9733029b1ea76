"""Run by the python of an environment with tritonclient: every answer of a server is what a file
says, and everything wrong is one sentence.

    python triton_client_run.py HTTP_PORT GRPC_PORT KEY NAME=FILE.npz ...

An array of a file is an input, or an output if its name begins with "out:". Headers are copied for
each call, since the client writes into them.
"""

import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tritonclient.grpc as by_grpc
import tritonclient.http as by_http
from tritonclient.utils import InferenceServerException, triton_to_np_dtype


def main(http_port: str, grpc_port: str, key: str, *models: str) -> None:
    http = by_http.InferenceServerClient(f"127.0.0.1:{http_port}", concurrency=4)
    grpc = by_grpc.InferenceServerClient(f"127.0.0.1:{grpc_port}")
    for module, client in ((by_http, http), (by_grpc, grpc)):
        headers = {"Authorization" if module is by_http else "authorization": f"Bearer {key}"}
        assert client.is_server_live()
        assert client.is_server_ready()
        for model in models:
            name, _, file = model.partition("=")
            arrays = dict(np.load(file))
            inputs = {n: each for n, each in arrays.items() if not n.startswith("out:")}
            outputs = {n[4:]: each for n, each in arrays.items() if n.startswith("out:")}
            check_model(module, client, headers, name, inputs, outputs)
            refused = 0
            for change in wrong(module, name, inputs):
                sentence = refusal(client, headers, change)
                assert sentence, change
                assert "\n" not in sentence, sentence
                assert len(sentence) < 400, sentence
                refused += 1
            check_answer(module, client, headers, name, inputs, outputs, binary=True)
            print(f"{module.__name__} {name}: {len(outputs)} outputs, {refused} refusals")
        assert not client.is_model_ready("nothing", headers=dict(headers))
        assert "key" in refusal(client, {}, {"model_name": name, "inputs": given(module, inputs)})


def given(module: Any, inputs: dict[str, np.ndarray], binary: bool = True, **datatypes: str) -> Any:
    tensors = []
    for name, values in inputs.items():
        datatype = datatypes.get(name) or by_numpy(values)
        tensor = module.InferInput(name, list(values.shape), datatype)
        extra = {"binary_data": binary} if module is by_http else {}
        tensor.set_data_from_numpy(values.astype(triton_to_np_dtype(datatype)), **extra)
        tensors.append(tensor)
    return tensors


def by_numpy(values: np.ndarray) -> str:
    from tritonclient.utils import np_to_triton_dtype

    return str(np_to_triton_dtype(values.dtype))


def check_model(
    module: Any,
    client: Any,
    headers: dict[str, str],
    name: str,
    inputs: dict[str, np.ndarray],
    outputs: dict[str, np.ndarray],
) -> None:
    assert client.is_model_ready(name, headers=dict(headers))
    assert client.is_model_ready(name, "1", headers=dict(headers))
    found = client.get_model_metadata(name, headers=dict(headers))
    if module is by_grpc:
        described = {each.name: (each.datatype, list(each.shape)) for each in found.inputs}
        described |= {each.name: (each.datatype, list(each.shape)) for each in found.outputs}
    else:
        described = {
            each["name"]: (each["datatype"], each["shape"])
            for each in (*found["inputs"], *found["outputs"])
        }
    assert list(described) == [*inputs, *outputs]
    for each, values in {**inputs, **outputs}.items():
        datatype, shape = described[each]
        assert datatype == by_numpy(values)
        assert all(n in (-1, m) for n, m in zip(shape, values.shape, strict=True))
    for binary in (True, False):
        check_answer(module, client, headers, name, inputs, outputs, binary)


def check_answer(
    module: Any,
    client: Any,
    headers: dict[str, str],
    name: str,
    inputs: dict[str, np.ndarray],
    outputs: dict[str, np.ndarray],
    binary: bool,
) -> None:
    extra = {"binary_data": binary} if module is by_http else {}
    last = list(outputs)[-1]
    chosen = [module.InferRequestedOutput(last, **extra)]
    tensors = given(module, inputs, binary)
    whole = client.infer(name, tensors, request_id="17", headers=dict(headers))
    some = client.infer(name, tensors, model_version="1", outputs=chosen, headers=dict(headers))
    for each, values in outputs.items():
        np.testing.assert_allclose(whole.as_numpy(each), values, rtol=1e-5, atol=1e-6)
        assert whole.as_numpy(each).dtype == values.dtype
    np.testing.assert_allclose(some.as_numpy(last), outputs[last], rtol=1e-5, atol=1e-6)
    answer = whole.get_response()
    assert (answer["id"] if module is by_http else answer.id) == "17"
    if module is by_http:
        waiting = [client.async_infer(name, tensors, headers=dict(headers)) for _ in range(8)]
        for one in waiting:
            np.testing.assert_allclose(one.get_result().as_numpy(last), outputs[last], rtol=1e-5)


def wrong(module: Any, name: str, inputs: dict[str, np.ndarray]) -> Iterator[dict[str, Any]]:
    """The arguments of ``infer`` that must be refused."""
    first, values = next(iter(inputs.items()))
    good = given(module, inputs)
    yield {"model_name": "nothing", "inputs": good}
    yield {"model_name": name, "model_version": "99", "inputs": good}
    yield {"model_name": name, "inputs": given(module, {"wrong": values})}
    yield {"model_name": name, "inputs": given(module, inputs, **{first: "FP64"})}
    yield {"model_name": name, "inputs": given(module, inputs, **{first: "INT16"})}
    yield {"model_name": name, "inputs": given(module, {**inputs, first: values[0]})}
    yield {"model_name": name, "inputs": given(module, {**inputs, first: values[:0]})}
    yield {"model_name": name, "inputs": given(module, {**inputs, first: values[:, :1]})}
    yield {"model_name": name, "inputs": [*good, *good]}
    outputs = [module.InferRequestedOutput("nothing")]
    yield {"model_name": name, "inputs": good, "outputs": outputs}
    outputs = [module.InferRequestedOutput("labels", class_count=2)]
    yield {"model_name": name, "inputs": good, "outputs": outputs}
    shared = module.InferInput(first, list(values.shape), by_numpy(values))
    shared.set_shared_memory("region", values.nbytes)
    yield {"model_name": name, "inputs": [shared]}
    yield {"model_name": name, "inputs": good, "sequence_id": 5}
    texts = module.InferInput(first, [1], "BYTES")
    texts.set_data_from_numpy(np.array(["a"], object))
    yield {"model_name": name, "inputs": [texts]}
    for shape in ([2**62, *values.shape[1:]], [2**31] * values.ndim, [1], [0] * values.ndim):
        tensors = given(module, inputs)
        tensors[0].set_shape(shape)
        yield {"model_name": name, "inputs": tensors}


def refusal(client: Any, headers: dict[str, str], arguments: dict[str, Any]) -> str:
    call: Callable[..., Any] = client.infer
    try:
        call(**arguments, headers=dict(headers))
    except InferenceServerException as error:
        return str(error.message())
    raise AssertionError(f"{arguments} was answered")


main(*sys.argv[1:])
