"use strict";
/* Sorting and searching the table of clusters, and looking around in the map. Everything that is drawn is there without. */
(() => {
  const $ = (id) => document.getElementById(id);

  const table = $("cluster-table");
  if (table) {
    const bodies = [...table.tBodies];
    const words = bodies.map((body) =>
      [body.textContent, ...[...body.querySelectorAll("img")].map((img) => img.alt)].join(" ").toLowerCase());
    const value = (body, column) => Number(body.rows[0].cells[column].dataset.value);
    const heads = [...table.tHead.rows[0].cells];
    const sort = (column) => {
      const down = heads[column].getAttribute("aria-sort") !== "descending" && column > 0
        || heads[column].getAttribute("aria-sort") === "ascending";
      heads.forEach((head, i) => i === column
        ? head.setAttribute("aria-sort", down ? "descending" : "ascending") : head.removeAttribute("aria-sort"));
      const order = bodies.map((body) => [value(body, column), body]);
      order.sort((a, b) => (down ? b[0] - a[0] : a[0] - b[0]));
      table.append(...order.map((pair) => pair[1]));
    };
    heads.forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      button.addEventListener("click", () => sort(column));
      head.append(button);
    });
    const search = $("cluster-search");
    const filter = () => {
      const wanted = search.value.trim().toLowerCase();
      let shown = 0;
      bodies.forEach((body, i) => { shown += !(body.hidden = !words[i].includes(wanted)); });
      $("cluster-count").value = `${shown} of ${bodies.length} clusters`;
    };
    search.addEventListener("input", filter);
    search.closest(".tools").hidden = false;
    filter();
  }

  const source = $("map-data");
  if (source) {
    const { width, height, points, pictures } = JSON.parse(source.textContent);
    for (const img of document.querySelectorAll("img")) pictures[img.alt] ??= img.src;
    const box = $("map-box"), canvas = document.createElement("canvas"), tip = document.createElement("div");
    const brush = canvas.getContext("2d");
    const ink = (name) => getComputedStyle(document.documentElement).getPropertyValue(name);
    let current = -1, path = [], moved = false;
    const chosen = new Set();
    tip.id = "map-tip";
    tip.hidden = true;
    tip.setAttribute("role", "status");
    box.append(canvas, tip);
    box.tabIndex = 0;
    box.setAttribute("role", "application");
    box.setAttribute("aria-label", "Map of the embeddings");
    box.setAttribute("aria-describedby", "map-help");
    $("map-help").hidden = false;

    const draw = () => {
      const scale = box.clientWidth / width, sharp = window.devicePixelRatio || 1;
      canvas.width = Math.round(box.clientWidth * sharp);
      canvas.height = Math.round(box.clientHeight * sharp);
      // The picture underneath begins below its margin, and keeps its proportions.
      const top = box.clientHeight - height * scale;
      brush.setTransform(sharp * scale, 0, 0, sharp * scale, 0, sharp * top);
      const ring = (i, radius, color, line) => {
        brush.beginPath();
        brush.arc(points[i].x, points[i].y, radius / scale, 0, 7);
        brush.strokeStyle = color;
        brush.lineWidth = line / scale;
        brush.stroke();
      };
      for (const i of chosen) ring(i, 4, ink("--mark"), 2);
      if (current >= 0) ring(current, 7, ink("--ink"), 2);
      if (path.length > 1) {
        brush.beginPath();
        path.forEach(([x, y]) => brush.lineTo(x, y));
        brush.closePath();
        brush.strokeStyle = ink("--ink");
        brush.lineWidth = 1.5 / scale;
        brush.stroke();
        brush.globalAlpha = 0.08;
        brush.fillStyle = ink("--ink");
        brush.fill();
        brush.globalAlpha = 1;
      }
    };
    const show = (i) => {
      current = i;
      tip.hidden = i < 0;
      if (i >= 0) {
        const { x, y, key, text } = points[i], scale = box.clientWidth / width;
        const img = document.createElement("img"), name = document.createElement("div"), more = document.createElement("div");
        tip.replaceChildren();
        if (pictures[key]) {
          img.src = pictures[key];
          img.alt = "";
          tip.append(img);
        }
        name.textContent = key;
        more.textContent = text;
        more.className = "text";
        tip.append(...(key ? [name, more] : [more]));
        const left = x * scale, top = box.clientHeight - (height - y) * scale;
        tip.style.left = `${Math.max(0, Math.min(left + 12, box.clientWidth - tip.offsetWidth))}px`;
        tip.style.top = `${top + 14 + tip.offsetHeight > box.clientHeight && top > tip.offsetHeight ? top - 12 - tip.offsetHeight : top + 14}px`;
      }
      draw();
    };
    const list = () => {
      const keys = [...chosen].sort((a, b) => a - b).map((i) => points[i].key || points[i].text);
      $("map-keys").value = keys.join("\n");
      $("map-count").value = keys.length;
      $("map-chosen").hidden = !keys.length;
      draw();
    };
    const toggle = (i) => {
      if (i < 0) return;
      chosen.delete(i) || chosen.add(i);
      list();
    };
    const place = (event) => {
      const frame = canvas.getBoundingClientRect(), scale = frame.width / width;
      return [(event.clientX - frame.left) / scale, (event.clientY - frame.bottom) / scale + height];
    };
    const nearest = ([x, y], within) => {
      let best = -1, least = within * within;
      points.forEach((point, i) => {
        const far = (point.x - x) ** 2 + (point.y - y) ** 2;
        if (far < least) [best, least] = [i, far];
      });
      return best;
    };
    const inside = ({ x, y }) => path.reduce((odd, [x1, y1], i) => {
      const [x2, y2] = path[(i + 1) % path.length];
      return (y1 > y) !== (y2 > y) && x < (x2 - x1) * (y - y1) / (y2 - y1) + x1 ? !odd : odd;
    }, false);
    const reach = () => 14 * width / box.clientWidth;
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      path = [place(event)];
      moved = false;
    });
    canvas.addEventListener("pointermove", (event) => {
      const at = place(event);
      if (path.length) {
        const [x, y] = path[path.length - 1];
        if (Math.hypot(at[0] - x, at[1] - y) > 4) {
          path.push(at);
          moved = true;
          show(-1);
        }
      } else {
        show(nearest(at, reach()));
      }
    });
    canvas.addEventListener("pointerup", (event) => {
      if (moved) points.forEach((point, i) => { if (inside(point)) chosen.add(i); });
      const at = moved ? -1 : nearest(place(event), reach());
      path = [];
      moved ? list() : toggle(at);
    });
    canvas.addEventListener("pointercancel", () => { path = []; draw(); });
    canvas.addEventListener("pointerleave", () => { if (!path.length) show(-1); });
    const ways = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    box.addEventListener("keydown", (event) => {
      const way = ways[event.key];
      if (way) {
        const from = points[current] || { x: width / 2, y: height / 2 };
        let best = current < 0 ? nearest([from.x, from.y], Infinity) : current, least = Infinity;
        if (current >= 0) points.forEach((point, i) => {
          const dx = point.x - from.x, dy = point.y - from.y, along = dx * way[0] + dy * way[1];
          const cost = along + 3 * Math.abs(dx * way[1] + dy * way[0]);
          if (along > 0 && cost < least) [best, least] = [i, cost];
        });
        show(best);
      } else if (event.key === "Enter" || event.key === " ") {
        toggle(current);
      } else if (event.key === "Escape") {
        chosen.clear();
        list();
      } else {
        return;
      }
      event.preventDefault();
    });
    box.addEventListener("blur", () => show(-1));
    new ResizeObserver(draw).observe(box);
  }
})();
