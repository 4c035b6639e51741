"use strict";
const at = (id) => document.getElementById(id);
const SVG = "http://www.w3.org/2000/svg";
let before = null;
let shown = "";
let images = [];

function made(name, text, parent, space) {
  const node = space ? document.createElementNS(space, name) : document.createElement(name);
  if (text !== null) node.textContent = text;
  if (parent) parent.append(node);
  return node;
}

function written(seconds) {
  return seconds < 1 ? `${+(seconds * 1000).toPrecision(2)} ms` : `${+seconds.toPrecision(2)} s`;
}

function number(value) {
  return Math.round(value).toLocaleString("en");
}

// What has not changed is not written again, since a screen reader would read it again.
function tell(text, good) {
  if (at("state").textContent !== text) at("state").textContent = text;
  at("state").className = good ? "good" : "bad";
}

function state(found) {
  const health = found.health;
  const good = health.ready && health.live;
  const texts = { draining: "ends, and answers what it accepted", closed: "closed" };
  let text = good ? "ready" : texts[health.state] || "not ready";
  if (!health.live) text = "broken: it needs a new process";
  tell(text, good);
  document.title = `${found.name}: ${text}`;
  at("name").textContent = found.name;
}

function now(found) {
  const { health, settings, counts } = found;
  const rows = [
    ["waiting", `${number(health.queued)} of ${number(settings.queue_size)}`],
    ["in the model", number(health.running)],
    ["slots at work", `${health.workers_alive} of ${health.workers}`],
  ];
  if (counts) {
    const failed = Object.entries(counts.failures).filter((entry) => entry[1] > 0);
    const many = failed.reduce((sum, entry) => sum + entry[1], 0);
    const why = failed.map((entry) => `${number(entry[1])} ${entry[0]}`).join(", ");
    rows.push(["answered", number(counts.answered)]);
    rows.push([failed.length ? `not answered (${why})` : "not answered", number(many)]);
    const size = counts.runs ? (counts.images / counts.runs).toFixed(1) : "-";
    rows.push(["images in a batch, mean", `${size} of ${settings.max_batch}`]);
    const time = performance.now();
    // The counts begin again where another process answers.
    if (before && counts.answered >= before.answered) {
      const rate = (1000 * (counts.answered - before.answered)) / (time - before.time);
      rows.push(["answers per second", rate < 10 ? rate.toFixed(1) : number(rate)]);
    }
    before = { answered: counts.answered, time };
  }
  const list = at("now");
  list.replaceChildren();
  for (const [name, value] of rows) {
    const row = made("div", null, list);
    made("dt", name, row);
    made("dd", value, row);
  }
}

function bound(text) {
  return text === "+Inf" ? "longer" : written(Number(text));
}

function quantile(buckets, total, share) {
  let sum = 0;
  for (const [text, count] of buckets) {
    sum += count;
    if (sum >= share * total) {
      return text === "+Inf" ? "longer than all bounds" : `up to ${bound(text)}`;
    }
  }
  return "unknown";
}

function latency(buckets) {
  if (!buckets) {
    at("latency-text").textContent = 'Needs prometheus-client: pip install "fxtrt[serve]"';
    return;
  }
  const total = buckets.reduce((sum, bucket) => sum + bucket[1], 0);
  const rows = at("rows");
  rows.replaceChildren();
  for (const [text, count] of buckets) {
    const row = made("tr", null, rows);
    made("td", bound(text), row);
    made("td", number(count), row);
  }
  at("histogram").toggleAttribute("hidden", total === 0);
  if (!total) return;
  const shares = [0.5, 0.95, 0.99].map((share) => quantile(buckets, total, share));
  at("latency-text").textContent =
    `Of ${number(total)} requests since the start, half took ${shares[0]}, ` +
    `95 % ${shares[1]}, and 99 % ${shares[2]}.`;
  const filled = buckets.map((bucket, place) => (bucket[1] ? place : -1)).filter((p) => p >= 0);
  bars(buckets.slice(Math.max(0, filled[0] - 2), filled[filled.length - 1] + 3));
}

function bars(buckets) {
  const chart = at("histogram");
  const [step, high] = [64, 150];
  const [wide, tall] = [buckets.length * step, high + 50];
  chart.setAttribute("viewBox", `0 0 ${wide} ${tall}`);
  chart.setAttribute("width", wide);
  chart.setAttribute("height", tall);
  chart.style.setProperty("--width", `${wide}px`);
  chart.replaceChildren();
  const most = Math.max(...buckets.map((bucket) => bucket[1]));
  buckets.forEach(([text, count], place) => {
    const size = (count / most) * high;
    const bar = made("rect", null, chart, SVG);
    const sides = { x: place * step + 4, y: 20 + high - size, width: step - 8, height: size };
    Object.entries(sides).forEach(([name, value]) => bar.setAttribute(name, value));
    const middle = place * step + step / 2;
    const label = made("text", bound(text), chart, SVG);
    label.setAttribute("x", middle);
    label.setAttribute("y", high + 38);
    if (count) {
      const amount = made("text", number(count), chart, SVG);
      amount.setAttribute("x", middle);
      amount.setAttribute("y", 14 + high - size);
    }
  });
}

function caption(found) {
  if (!found.length) return "nothing found with such a score";
  const names = found.slice(0, 8).map((one) => {
    const name = one.label === null ? "object" : `label ${one.label}`;
    return `${name} ${one.score.toFixed(2)}`;
  });
  const more = found.length > names.length ? `, and ${found.length - names.length} more` : "";
  return names.join(", ") + more;
}

function drawn(image, parent) {
  const least = Number(at("score").value);
  const found = image.boxes.filter((one) => one.score >= least);
  const figure = made("figure", null, parent);
  const frame = made("div", null, figure);
  frame.className = "drawn";
  const picture = made("img", null, frame);
  picture.src = `recent/${image.id}.jpg`;
  picture.alt = `image ${image.id}, ${image.width} x ${image.height}`;
  picture.width = image.width;
  picture.height = image.height;
  const overlay = made("svg", null, frame, SVG);
  overlay.setAttribute("viewBox", `0 0 ${image.width} ${image.height}`);
  overlay.setAttribute("aria-hidden", "true");
  for (const one of found) {
    const [left, top, right, bottom] = one.box;
    const box = made("rect", null, overlay, SVG);
    box.setAttribute("x", left * image.width);
    box.setAttribute("y", top * image.height);
    box.setAttribute("width", (right - left) * image.width);
    box.setAttribute("height", (bottom - top) * image.height);
  }
  made("figcaption", caption(found), figure);
}

function gallery(listed) {
  images = listed || [];
  let text = images.length ? "" : "No image came yet.";
  if (listed === null) text = "Images are not kept. fxtrt serve --show-images shows the last six.";
  at("images-text").textContent = text;
  at("score").parentElement.hidden = !images.length;
  const now = `${images.map((image) => image.id)} ${at("score").value}`;
  if (now === shown) return;
  shown = now;
  at("images").replaceChildren();
  images.forEach((image) => drawn(image, at("images")));
}

async function refresh() {
  try {
    const reply = await fetch("status", { signal: AbortSignal.timeout(5000) });
    if (!reply.ok) throw new Error(`status ${reply.status}`);
    const found = await reply.json();
    state(found);
    now(found);
    latency(found.latency);
    gallery(found.images);
    at("asked").textContent = `at ${new Date().toLocaleTimeString("en-GB")}`;
  } catch (error) {
    tell("no answer from the server", false);
    at("asked").textContent = String(error.message || error);
  }
  setTimeout(refresh, 2000);
}

at("score").addEventListener("input", () => {
  at("least").textContent = Number(at("score").value).toFixed(2);
  gallery(images);
});
at("curl").textContent =
  'curl --data-binary @street.jpg -H "Content-Type: image/jpeg" ' +
  `"${location.origin}/detect?min_score=0.5"`;
refresh();
