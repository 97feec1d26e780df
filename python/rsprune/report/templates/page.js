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
})();
