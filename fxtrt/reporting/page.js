// Draws the graph of #data with dagre: modules are boxes that a click folds and unfolds.
"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const picture = document.getElementById("picture");
  const tip = document.getElementById("tip");
  const status = document.getElementById("status");
  const choice = document.getElementById("graph");
  const SVG = "http://www.w3.org/2000/svg";
  const REJECTED = "#f5b8b0";
  const MOST_AT_START = 30; // boxes that are unfolded unasked
  const TITLE = 14; // above the boxes in an unfolded module
  const MOST_SHOWN = 600; // dagre takes seconds beyond
  let graph, children, counts, open;

  const hue = (cluster) => `hsl(${(cluster * 137 + 205) % 360} 65% 86%)`;

  function load(index) {
    graph = data.graphs[index];
    children = new Map([[-1, []]]);
    graph.boxes.forEach(([, parent, node], i) => {
      if (node < 0) children.set(i, []);
      children.get(parent).push(i);
    });
    counts = graph.boxes.map(() => new Map()); // of each box: place -> nodes
    graph.boxes.forEach(([, , node], i) => {
      if (node < 0) return;
      const [, , , cluster, rejection] = graph.nodes[node];
      const place = cluster >= 0 ? hue(cluster) : rejection >= 0 ? REJECTED : "#fff";
      for (let box = i; box >= 0; box = graph.boxes[box][1])
        counts[box].set(place, (counts[box].get(place) || 0) + 1);
    });
    open = new Set();
    while (unfoldLevel(MOST_AT_START));
    draw();
  }

  function visible() {
    const shown = [];
    const visit = (box) => children.get(box).forEach((child) => {
      shown.push(child);
      if (open.has(child)) visit(child);
    });
    visit(-1);
    return shown;
  }

  function unfoldLevel(most) {
    const folded = visible().filter((box) => children.has(box) && !open.has(box));
    const more = folded.reduce((sum, box) => sum + children.get(box).length, 0);
    if (!folded.length || visible().length + more > most) return false;
    folded.forEach((box) => open.add(box));
    return true;
  }

  function toggle(box) {
    if (open.has(box)) open.delete(box);
    else if (visible().length + children.get(box).length <= MOST_SHOWN) open.add(box);
    else return say(`more than ${MOST_SHOWN} boxes: fold another module first`);
    draw();
  }

  function say(text) {
    const dropped = graph.dropped ? `; ${graph.dropped} nodes are not in the picture` : "";
    status.textContent = text + dropped;
  }

  function layout(shown) {
    const g = new dagre.graphlib.Graph({ compound: true });
    g.setGraph({ nodesep: 14, ranksep: 30, marginx: 12, marginy: 12 + TITLE });
    g.setDefaultEdgeLabel(() => ({}));
    const seen = new Set(shown);
    for (const box of shown) {
      const width = Math.max(64, title(box).length * 7 + 20);
      g.setNode(`${box}`, open.has(box) ? {} : { width, height: children.has(box) ? 38 : 26 });
      const parent = graph.boxes[box][1];
      if (parent >= 0) g.setParent(`${box}`, `${parent}`);
    }
    const shownAs = new Map(); // node -> the innermost box that is drawn
    graph.boxes.forEach(([, , node], i) => {
      if (node < 0) return;
      let box = i;
      while (!seen.has(box)) box = graph.boxes[box][1];
      shownAs.set(node, box);
    });
    for (const [from, to] of graph.edges) {
      const [a, b] = [shownAs.get(from), shownAs.get(to)];
      if (a !== b) g.setEdge(`${a}`, `${b}`);
    }
    dagre.layout(g);
    return g;
  }

  function title(box) {
    const size = [...counts[box].values()].reduce((a, b) => a + b, 0);
    const label = graph.boxes[box][0];
    return children.has(box) && !open.has(box) ? `${label} (${size})` : label;
  }

  function draw() {
    const shown = visible();
    const g = layout(shown);
    const { width, height } = g.graph();
    const svg = element("svg", { width, height, viewBox: `0 0 ${width} ${height}` });
    const marker = element("marker", { id: "head", viewBox: "0 0 8 8", refX: 8, refY: 4,
      markerWidth: 6, markerHeight: 6, orient: "auto" }, element("defs", {}, svg));
    element("path", { d: "M0 0 8 4 0 8z", style: "fill:#8a96a3;stroke:none" }, marker);
    shown.filter((box) => open.has(box)).forEach((box) => drawOpen(box, g.node(`${box}`), svg));
    for (const edge of g.edges()) {
      const points = g.edge(edge).points.map(({ x, y }) => `${x} ${y}`).join(" L");
      element("path", { d: `M${points}`, "marker-end": "url(#head)" }, svg);
    }
    shown.filter((box) => !open.has(box)).forEach((box) => drawClosed(box, g.node(`${box}`), svg));
    picture.replaceChildren(svg);
    say(`${shown.length} of ${graph.boxes.length} boxes shown`);
  }

  function drawOpen(box, at, svg) {
    const group = group_of(box, svg);
    const corner = { x: at.x - at.width / 2, y: at.y - at.height / 2 };
    corner.y -= TITLE;
    element("rect", { ...corner, width: at.width, height: at.height + TITLE, rx: 6,
      style: "fill:rgba(90,110,130,.07);stroke:#9aa7b4" }, group);
    element("text", { x: corner.x + 6, y: corner.y + 13 }, group).textContent = title(box);
  }

  function drawClosed(box, at, svg) {
    const group = group_of(box, svg);
    const [left, top] = [at.x - at.width / 2, at.y - at.height / 2];
    const total = [...counts[box].values()].reduce((a, b) => a + b, 0);
    let x = left;
    for (const [color, count] of counts[box]) {
      const width = (at.width * count) / total;
      element("rect", { x, y: top, width, height: at.height, style: `fill:${color}` }, group);
      x += width;
    }
    const rejected = counts[box].has(REJECTED);
    element("rect", { x: left, y: top, width: at.width, height: at.height, rx: 3,
      style: `fill:none;stroke:${rejected ? "#c0392b" : "#7b8794"};pointer-events:all` }, group);
    element("text", { x: at.x, y: at.y + 4, "text-anchor": "middle" }, group).textContent =
      title(box);
  }

  function group_of(box, svg) {
    const node = graph.boxes[box][2];
    const group = element("g", { class: node < 0 ? "module" : "node", "data-box": box }, svg);
    if (node < 0) group.addEventListener("click", () => toggle(box));
    group.addEventListener("mousemove", (event) => showTip(box, event));
    group.addEventListener("mouseleave", () => (tip.style.display = "none"));
    return group;
  }

  function describe(box) {
    const node = graph.boxes[box][2];
    if (node < 0) {
      const kinds = [...counts[box]].map(([color, count]) =>
        `${count} ${color === REJECTED ? "in PyTorch" : color === "#fff" ? "free" : "in a cluster"}`);
      return `${path(box)}\n${kinds.join("\n")}`;
    }
    const [name, target, module, cluster, rejection] = graph.nodes[node];
    const place = cluster >= 0 ? data.clusters[cluster]
      : rejection >= 0 ? `${data.rejections[rejection]}\n${data.sources[rejection]}` : "";
    return `${name}: ${target}\n${module}\n${place}`;
  }

  function common(paths) {
    const parts = paths.map((each) => each.split("."));
    let length = 0;
    while (parts.every((each) => each.length > length && each[length] === parts[0][length]))
      length += 1;
    const first = [...new Set(parts.map((each) => each[0]))];
    return length ? parts[0].slice(0, length).join(".") : first.slice(0, 3).join(", ");
  }

  function path(box) {
    const [label, parent] = graph.boxes[box];
    return parent < 0 ? label : `${path(parent)}.${label}`;
  }

  function showTip(box, event) {
    tip.textContent = describe(box);
    tip.style.display = "block";
    tip.style.left = `${Math.min(event.clientX + 14, innerWidth - tip.offsetWidth - 8)}px`;
    tip.style.top = `${Math.min(event.clientY + 14, innerHeight - tip.offsetHeight - 8)}px`;
  }

  function element(name, attributes, parent) {
    const made = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    if (parent) parent.append(made);
    return made;
  }

  if (!data.graphs.length) {
    picture.textContent = "No graph was captured.";
    return;
  }
  data.graphs.forEach((each, i) => {
    const tops = [...new Set(each.nodes.map(([, , module]) => module).filter(Boolean))];
    const name = tops.length ? common(tops) : "model";
    choice.add(new Option(`${i}: ${name}, ${each.nodes.length} nodes`, i));
  });
  choice.addEventListener("change", () => load(Number(choice.value)));
  document.getElementById("unfold").addEventListener("click", () => {
    if (unfoldLevel(MOST_SHOWN)) draw();
    else say(`nothing more to unfold within ${MOST_SHOWN} boxes`);
  });
  document.getElementById("fold").addEventListener("click", () => {
    open.clear();
    draw();
  });
  load(0);
})();
