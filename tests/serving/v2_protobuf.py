"""The messages of the Open Inference Protocol, made by protobuf from the fields of
``open_inference_grpc.proto``: what our own wire format is held against.
"""

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

PROTO = """
ModelReadyRequest: 1 name string, 2 version string
ModelMetadataRequest: 1 name string, 2 version string
Flag: 1 value bool
ServerMetadataResponse: 1 name string, 2 version string, 3 extensions string*
TensorMetadata: 1 name string, 2 datatype string, 3 shape int64*
ModelMetadataResponse: 1 name string, 2 versions string*, 3 platform string, \
4 inputs TensorMetadata*, 5 outputs TensorMetadata*
InferParameter: 1 bool_param bool, 2 int64_param int64, 3 string_param string
Parameter: 1 key string, 2 value InferParameter
InferTensorContents: 1 bool_contents bool*, 2 int_contents int32*, 3 int64_contents int64*, \
4 uint_contents uint32*, 5 uint64_contents uint64*, 6 fp32_contents float*, \
7 fp64_contents double*, 8 bytes_contents bytes*
InferInputTensor: 1 name string, 2 datatype string, 3 shape int64*, 4 parameters Parameter*, \
5 contents InferTensorContents
InferRequestedOutputTensor: 1 name string, 2 parameters Parameter*
ModelInferRequest: 1 model_name string, 2 model_version string, 3 id string, \
4 parameters Parameter*, 5 inputs InferInputTensor*, 6 outputs InferRequestedOutputTensor*, \
7 raw_input_contents bytes*
ModelInferResponse: 1 model_name string, 2 model_version string, 3 id string, \
5 outputs InferInputTensor*, 6 raw_output_contents bytes*
"""


def _messages() -> dict[str, Any]:
    file = descriptor_pb2.FileDescriptorProto(
        name="open_inference_test.proto", package="open_inference_test", syntax="proto3"
    )
    kinds = descriptor_pb2.FieldDescriptorProto
    for line in PROTO.strip().split("\n"):
        name, _, fields = line.partition(": ")
        message = file.message_type.add(name=name)
        for field in fields.split(", "):
            number, field_name, kind = field.split()
            plain = kind.rstrip("*")
            added = message.field.add(
                name=field_name,
                number=int(number),
                label=kinds.LABEL_REPEATED if kind.endswith("*") else kinds.LABEL_OPTIONAL,
            )
            if plain[0].isupper():
                added.type = kinds.TYPE_MESSAGE
                added.type_name = f".open_inference_test.{plain}"
            else:
                added.type = kinds.Type.Value(f"TYPE_{plain.upper()}")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        each.name: message_factory.GetMessageClass(
            pool.FindMessageTypeByName(f"open_inference_test.{each.name}")
        )
        for each in file.message_type
    }


MESSAGES = _messages()
