// The comparison: sorted by a click on a head, filtered by dataset and noise.
const comparison = document.getElementById("comparison-table");
if (comparison) {
  const heads = [...comparison.tHead.rows[0].cells], body = comparison.tBodies[0], rows = [...body.rows];
  const filters = [...document.querySelectorAll("[data-filter]")];
  const indexOf = (name) => heads.findIndex((head) => head.dataset.name === name);

  function valueOf(row, index) {
    const value = row.cells[index].dataset.value;
    return value !== undefined && heads[index].hasAttribute("data-numeric") ? +value : value;
  }

  function sortBy(index) {
    const down = heads[index].getAttribute("aria-sort") === "ascending", sign = down ? -1 : 1;
    heads.forEach((head) => head.removeAttribute("aria-sort"));
    heads[index].setAttribute("aria-sort", down ? "descending" : "ascending");
    const order = (a, b) => {
      const x = valueOf(a, index), y = valueOf(b, index);
      if (x === undefined || y === undefined) return (x === undefined) - (y === undefined); // nothing comes last
      return sign * (typeof x === "number" ? x - y : x < y ? -1 : x > y ? 1 : 0);
    };
    body.append(...[...body.rows].sort(order));
  }

  function filter() {
    const wanted = filters.filter((one) => one.value).map((one) => [indexOf(one.dataset.filter), one.value]);
    for (const row of rows) row.hidden = wanted.some(([index, value]) => row.cells[index].textContent !== value);
    const shown = rows.filter((row) => !row.hidden).length;
    document.getElementById("rows").textContent = shown === rows.length ? `${shown} rows` : `${shown} of ${rows.length} rows`;
  }

  heads.forEach((head, index) => head.firstElementChild.addEventListener("click", () => sortBy(index)));
  for (const select of filters) {
    const names = new Set(rows.map((row) => row.cells[indexOf(select.dataset.filter)].textContent));
    for (const name of names) select.append(new Option(name, name));
    select.addEventListener("change", filter);
  }
  filter();
  const button = document.getElementById("all-columns");
  button.hidden = !heads.some((head) => head.classList.contains("more"));
  button.addEventListener("click", () => button.setAttribute("aria-pressed", comparison.classList.toggle("all")));
}
