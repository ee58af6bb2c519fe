"""The two looks of one scene: materials with an output per look, sun, sky, and engine settings.

Reads nothing. Writes materials and settings into the open Blender scene; values are linear RGB.
"""

from __future__ import annotations

import math

import bpy
from meshes import KINDS
from world import Plan

SAMPLES = 5  # paths a pixel of the truth, which is then denoised
PARTS_APART = 1000.0  # metres between the coordinates of two parts, times a number from 0 to 1
SUN_RENDER, AMBIENT_RENDER = 6.0, (0.38, 0.40, 0.44)  # W/m2 and share of the base colour
SKY = {
    "clear": ((0.30, 0.50, 0.86), (0.80, 0.86, 0.92)),
    "rain": ((0.42, 0.46, 0.52),) * 2,
    "snow": ((0.62, 0.66, 0.72),) * 2,
    "fog": ((0.66, 0.69, 0.72),) * 2,
    "dusk": ((0.10, 0.14, 0.34), (0.75, 0.36, 0.22)),
}  # zenith, horizon of the truth
SUN_TRUTH = {
    "clear": (2.9, (1.0, 0.93, 0.82), 9.0),
    "rain": (0.35, (0.9, 0.95, 1.0), 60.0),
    "snow": (0.6, (0.95, 0.97, 1.0), 50.0),
    "fog": (0.5, (1.0, 0.98, 0.95), 60.0),
    "dusk": (1.6, (1.0, 0.52, 0.25), 7.0),
}  # W/m2, colour, angle in degrees
# kind: roughness, grain (share of the colour), bump (metres), dirt towards the ground
SURFACE = {
    "plain": (0.75, 0.10, 0.006, 0.45),
    "brick": (0.85, 0.16, 0.020, 0.40),
    "plank": (0.60, 0.14, 0.012, 0.35),
    "tile": (0.35, 0.06, 0.008, 0.15),
    "slab": (0.85, 0.14, 0.012, 0.0),
    "stripe": (0.85, 0.08, 0.004, 0.25),
    "facade": (0.85, 0.10, 0.020, 0.40),
    "gloss": (0.28, 0.03, 0.0, 0.15),
    "glass": (0.06, 0.0, 0.0, 0.0),
    "skin": (0.48, 0.05, 0.001, 0.0),
    "hair": (0.42, 0.22, 0.006, 0.0),
    "cloth": (0.90, 0.10, 0.005, 0.0),
    "leaf": (0.70, 0.35, 0.040, 0.0),
    "asphalt": (0.92, 0.20, 0.008, 0.0),
    "lamp": (0.60, 0.0, 0.0, 0.0),
    "eye": (0.12, 0.0, 0.0, 0.0),
}
# kind: width, row height, joint, offset of every second row (metres)
PATTERN = {
    "brick": (0.40, 0.17, 0.016, 0.5),
    "plank": (1.90, 0.21, 0.010, 0.37),
    "tile": (0.45, 0.45, 0.016, 0.0),
    "slab": (0.80, 0.80, 0.016, 0.5),
    "facade": (2.2, 2.6, 0.55, 0.0),
}


class Nodes:
    """A node tree written as expressions."""

    def __init__(self, tree: bpy.types.NodeTree) -> None:
        self.tree = tree
        tree.nodes.clear()

    def new(self, kind: str, settings: dict | None = None, **inputs: object) -> bpy.types.Node:
        """A node; inputs by name with spaces as `_`, a socket links and a value is set."""
        node = self.tree.nodes.new(kind)
        for key, value in (settings or {}).items():
            setattr(node, key, value)
        for key, value in inputs.items():
            self.put(node.inputs[key.replace("_", " ")], value)
        return node

    def put(self, socket: bpy.types.NodeSocket, value: object) -> None:
        """Link or set one input."""
        if isinstance(value, bpy.types.NodeSocket):
            self.tree.links.new(value, socket)
        else:
            socket.default_value = value

    def math(self, op: str, *values: object, clamp: bool = False) -> bpy.types.NodeSocket:
        """A scalar operation."""
        node = self.new("ShaderNodeMath", {"operation": op, "use_clamp": clamp})
        for socket, value in zip(node.inputs, values, strict=False):
            self.put(socket, value)
        return node.outputs[0]

    def mix(self, factor: object, a: object, b: object, blend: str = "MIX") -> bpy.types.NodeSocket:
        """A colour between a and b."""
        node = self.new("ShaderNodeMix", {"data_type": "RGBA", "blend_type": blend})
        for socket, value in zip(
            (node.inputs[0], node.inputs[6], node.inputs[7]), (factor, a, b), strict=True
        ):
            self.put(socket, value)
        return node.outputs[2]

    def output(self, name: str, socket: bpy.types.NodeSocket) -> None:
        """A named material output, chosen later by `switch`."""
        node = self.new("ShaderNodeOutputMaterial")
        node.name = name
        self.tree.links.new(socket, node.inputs["Surface"])


def make_materials(plan: Plan) -> dict[str, bpy.types.Material]:
    """One material a kind, each with the outputs render, truth, passes and surface."""
    return {kind: make_material(kind, plan.weather) for kind in KINDS}


def make_material(kind: str, weather: str) -> bpy.types.Material:
    """Painted colour, then four outputs."""
    material = bpy.data.materials.new(kind)
    material.use_nodes = True
    material.cycles.emission_sampling = "NONE"
    n = Nodes(material.node_tree)
    paint, joint = painted_colour(n, kind)
    up = n.new("ShaderNodeSeparateXYZ", Vector=n.new("ShaderNodeNewGeometry").outputs["Normal"]).outputs["Z"]
    render_output(n, kind, paint, up)
    truth_output(n, kind, paint, joint, up, weather)
    code = n.new(
        "ShaderNodeCombineColor",
        Red=n.new("ShaderNodeObjectInfo").outputs["Object Index"],
        Green=n.new("ShaderNodeCameraData").outputs["View Z Depth"],
    )
    n.output("passes", n.new("ShaderNodeEmission", Color=code.outputs[0]).outputs[0])
    # The point that is seen, in metres of the part it is on, wherever that has gone; parts lie far from one another.
    part = n.math(
        "MULTIPLY_ADD", n.new("ShaderNodeObjectInfo").outputs["Random"], PARTS_APART, PARTS_APART / 2
    )
    point = n.new("ShaderNodeVectorMath", {"operation": "ADD"})
    n.put(point.inputs[0], n.new("ShaderNodeTexCoord").outputs["Object"])
    n.put(point.inputs[1], part)
    n.output("surface", n.new("ShaderNodeEmission", Color=point.outputs[0]).outputs[0])
    return material


def painted_colour(n: Nodes, kind: str) -> tuple[bpy.types.NodeSocket, bpy.types.NodeSocket | None]:
    """The base colour both looks share, and the pattern's joint mask (1 in the joint)."""
    base = n.new("ShaderNodeAttribute", {"attribute_name": "base"}).outputs["Color"]
    second = n.new("ShaderNodeAttribute", {"attribute_name": "second"}).outputs["Color"]
    uv = n.new("ShaderNodeAttribute", {"attribute_name": "UVMap"}).outputs["Vector"]
    if kind in PATTERN:
        width, row, size, offset = PATTERN[kind]
        tint = (1.0, 1.0) if kind == "facade" else (0.86, 1.10)
        brick = n.new(
            "ShaderNodeTexBrick",
            {"offset": offset},
            Vector=uv,
            Scale=1.0,
            Mortar_Size=size,
            Mortar_Smooth=0.0,
            Brick_Width=width,
            Row_Height=row,
            Color1=n.mix(1.0, base, (tint[0],) * 3 + (1,), "MULTIPLY"),
            Color2=n.mix(1.0, base, (tint[1],) * 3 + (1,), "MULTIPLY"),
            Mortar=second,
        )
        return brick.outputs["Color"], brick.outputs["Factor"]
    if kind in ("stripe", "cloth"):
        if kind == "stripe":
            along, step = n.new("ShaderNodeSeparateXYZ", Vector=uv).outputs["X"], 0.36
        else:
            place = n.new("ShaderNodeTexCoord").outputs["Object"]
            along, step = n.new("ShaderNodeSeparateXYZ", Vector=place).outputs["Z"], 0.075
        wave = n.math("FRACT", n.math("MULTIPLY_ADD", along, 1 / step, 50.0))
        return n.mix(n.math("GREATER_THAN", wave, 0.5), base, second), None
    return base, None


def render_output(n: Nodes, kind: str, paint: bpy.types.NodeSocket, up: bpy.types.NodeSocket) -> None:
    """Flat: a Lambert term of the hard sun plus a constant ambient, a little less from below."""
    ambient = n.mix(1.0, paint, (*AMBIENT_RENDER, 1.0), "MULTIPLY")
    strength = 1.6 if kind == "lamp" else n.math("MULTIPLY_ADD", up, 0.12, 0.94)
    glow = n.new("ShaderNodeEmission", Color=ambient, Strength=strength).outputs[0]
    sun = n.new("ShaderNodeBsdfDiffuse", Color=paint).outputs[0]
    both = n.new("ShaderNodeAddShader")
    n.put(both.inputs[0], sun)
    n.put(both.inputs[1], glow)
    n.output("render", both.outputs[0])


def truth_output(
    n: Nodes,
    kind: str,
    paint: bpy.types.NodeSocket,
    joint: bpy.types.NodeSocket | None,
    up: bpy.types.NodeSocket,
    weather: str,
) -> None:
    """Weathered and bumped; every large stain follows height, direction or the painted joints."""
    rough, grain, bump, dirt = SURFACE[kind]
    place = n.new("ShaderNodeTexCoord").outputs["Object"]
    colour, roughness, height = paint, rough, None
    if grain:
        scale = {"skin": 90.0, "hair": 60.0, "cloth": 120.0, "leaf": 14.0}.get(kind, 30.0)
        if kind == "hair":  # strands run down
            place = n.new("ShaderNodeMapping", Vector=place, Scale=(2.0, 2.0, 0.35)).outputs[0]
        noise = n.new("ShaderNodeTexNoise", Vector=place, Scale=scale, Detail=1.0).outputs[0]
        value = n.math("MULTIPLY_ADD", noise, 2.4 * grain, 1.0 - 1.2 * grain)
        colour = n.mix(1.0, colour, value, "MULTIPLY")
        height = n.math("MULTIPLY", noise, 0.5)
    if joint is not None and kind != "facade":
        colour = n.mix(n.math("MULTIPLY", joint, 0.45), colour, (0.05, 0.045, 0.04, 1))
    if joint is not None:
        height = n.math("SUBTRACT", height, joint)
        if kind == "facade":  # the panes are glass, the joint is the wall
            height = n.math("MULTIPLY", height, -1.0)
            roughness = n.math("MULTIPLY_ADD", joint, rough - 0.08, 0.08)
    if dirt:  # splash from the ground fades within a metre
        z = n.new("ShaderNodeSeparateXYZ", Vector=n.new("ShaderNodeNewGeometry").outputs["Position"]).outputs[
            "Z"
        ]
        low = n.math("POWER", n.math("SUBTRACT", 1.0, z, clamp=True), 1.5)
        colour = n.mix(n.math("MULTIPLY", low, dirt), colour, (0.12, 0.095, 0.07, 1))
    if weather == "rain" and kind not in ("skin", "hair", "eye", "lamp", "glass"):
        wet = n.math("MULTIPLY", up, 0.85, clamp=True)
        colour = n.mix(n.math("MULTIPLY_ADD", wet, 0.40, 0.12), colour, (0.02, 0.022, 0.025, 1))
        roughness = n.math("MULTIPLY_ADD", wet, 0.10 - rough, rough) if kind != "facade" else rough
    if weather == "snow" and kind not in ("skin", "eye", "lamp", "glass"):
        white = n.math("MULTIPLY_ADD", up, 3.0, -1.3, clamp=True)
        share = 0.45 if kind in ("cloth", "hair") else 0.95
        colour = n.mix(n.math("MULTIPLY", white, share), colour, (0.86, 0.88, 0.92, 1))
    shader = n.new("ShaderNodeBsdfPrincipled", Base_Color=colour, Roughness=roughness)
    if kind == "gloss":
        shader.inputs["Coat Weight"].default_value = 0.7
        shader.inputs["Coat Roughness"].default_value = 0.06
    if kind == "lamp":
        n.put(shader.inputs["Emission Color"], paint)
        shader.inputs["Emission Strength"].default_value = 1.2
    if bump:
        normal = n.new("ShaderNodeBump", Strength=0.9, Distance=bump, Height=height)
        n.put(shader.inputs["Normal"], normal.outputs[0])
    n.output("truth", shader.outputs[0])


def make_light(plan: Plan, azimuth: float, elevation: float) -> None:
    """The sun (radians; azimuth 0 shines from -y, positive from +x) and an empty sky."""
    scene = bpy.context.scene
    sun = bpy.data.objects.new("sun", bpy.data.lights.new("sun", "SUN"))
    sun.rotation_euler = (math.pi / 2 - elevation, 0, azimuth)
    scene.collection.objects.link(sun)
    scene.world = bpy.data.worlds.new("sky")
    scene.world.use_nodes = True
    scene.world.cycles.sampling_method = "NONE"
    n = Nodes(scene.world.node_tree)
    flat = n.new("ShaderNodeBackground", Strength=1.0).outputs[0]
    up = n.new("ShaderNodeSeparateXYZ", Vector=n.new("ShaderNodeTexCoord").outputs["Generated"]).outputs["Z"]
    zenith, horizon = SKY[plan.weather]
    rise = n.math("POWER", n.math("MULTIPLY", up, 1.0, clamp=True), 0.6)
    soft = n.new(
        "ShaderNodeBackground", Strength=1.0, Color=n.mix(rise, (*horizon, 1), (*zenith, 1))
    ).outputs[0]
    black = n.new("ShaderNodeBackground", Strength=0.0).outputs[0]
    for name, socket in (("render", flat), ("truth", soft), ("passes", black), ("surface", black)):
        node = n.new("ShaderNodeOutputWorld")
        node.name = name
        n.put(node.inputs["Surface"], socket)
    flat.node.inputs["Color"].default_value = (0.42, 0.60, 0.86, 1)


def switch(look: str, plan: Plan, samples: int = SAMPLES) -> None:
    """Set materials, light and engine to render, truth, passes or surface; `unlit` is the render without sun."""
    scene = bpy.context.scene
    output = "render" if look == "unlit" else look
    for tree in [m.node_tree for m in bpy.data.materials] + [scene.world.node_tree]:
        for node in tree.nodes:
            if node.bl_idname in ("ShaderNodeOutputMaterial", "ShaderNodeOutputWorld"):
                node.is_active_output = node.name == output
    cycles, sun = scene.cycles, bpy.data.objects["sun"].data
    scene.render.engine = "CYCLES"
    scene.render.use_persistent_data = True
    cycles.use_denoising = look == "truth"
    cycles.denoising_input_passes = "RGB_ALBEDO_NORMAL"
    cycles.denoising_prefilter = "FAST"
    cycles.use_adaptive_sampling = False
    cycles.seed = 0  # still noise: what is left of it must not flicker
    cycles.samples = samples if look == "truth" else 1  # the game smooths no edges
    cycles.max_bounces = 1 if look == "truth" else 0  # the ray after the last bounce sees the sky
    cycles.caustics_reflective = cycles.caustics_refractive = False
    cycles.filter_width = 1.2 if look == "truth" else 0.01
    scene.camera.data.dof.use_dof = look == "truth"
    sun.energy, sun.color, sun.angle = SUN_RENDER, (1.0, 0.97, 0.92), 0.0
    if plan.world == "road" and look == "render":  # another engine: harder and bluer
        sun.energy, sun.color = SUN_RENDER * 1.15, (1.0, 1.0, 0.97)
    if look == "truth":
        energy, colour, angle = SUN_TRUTH[plan.weather]
        sun.energy, sun.color, sun.angle = energy, colour, math.radians(angle)
    if look in ("passes", "surface", "unlit"):
        sun.energy = 0.0
    # In the game nothing lights but the sun: even with no bounce allowed Cycles would follow one
    # more ray and gather the ambient term of the surfaces it meets.
    light = look == "truth"
    for obj in (o for o in scene.objects if o.type == "MESH"):
        obj.visible_diffuse = obj.visible_glossy = light
    visible = scene.world.cycles_visibility
    visible.diffuse = visible.glossy = visible.transmission = visible.scatter = light
