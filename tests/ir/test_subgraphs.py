"""Branches and bodies are found wherever they are: in one graph, in a list of them, in each other."""

from __future__ import annotations

from onnx import GraphProto, NodeProto, helper

from onnxplain.ir.subgraphs import bodies, every_graph, every_node


def graph(name: str, *nodes: NodeProto) -> GraphProto:
    return helper.make_graph(nodes, name, [], [])


def test_each_node_is_followed_by_those_in_it() -> None:
    inner = graph("inner", helper.make_node("Neg", ["x"], ["y"], "deep"))
    loop = helper.make_node("Loop", [], ["z"], "loop", body=graph("outer", helper.make_node("If", ["c"], ["y"], "if")))
    loop.attribute[0].g.node[0].attribute.append(helper.make_attribute("branches", [inner, graph("empty")]))
    main = graph("main", loop, helper.make_node("Relu", ["z"], ["w"], "last"))
    assert [node.name for node in every_node(main.node)] == ["loop", "if", "deep", "last"]
    assert [each.name for each in every_graph(main)] == ["main", "outer", "inner", "empty"]
    assert [each.name for each in bodies(main.node[0])] == ["outer"]
