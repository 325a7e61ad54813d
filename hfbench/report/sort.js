/* Lets a table be sorted by a click on a header: numbers by size, words by letter, what is missing last. */
(() => {
  "use strict";
  const keyOf = (row, index) => {
    const text = row.cells[index].textContent.trim();
    const number = Number.parseFloat(text);
    return { text, number: /^[-+]?[\d.]/.test(text) ? number : Number.NaN, missing: text === "–" || text === "" };
  };
  const compare = (one, other) => {
    if (!Number.isNaN(one.number) && !Number.isNaN(other.number)) return one.number - other.number;
    return one.text.localeCompare(other.text);
  };
  for (const table of document.querySelectorAll("table.sortable")) {
    const headers = [...table.tHead.rows[0].cells];
    const sortBy = (index) => {
      const header = headers[index];
      const falls = header.getAttribute("aria-sort") === "ascending";
      for (const each of headers) each.removeAttribute("aria-sort");
      header.setAttribute("aria-sort", falls ? "descending" : "ascending");
      const rows = [...table.tBodies[0].rows].map((row) => ({ row, key: keyOf(row, index) }));
      rows.sort((one, other) => {
        if (one.key.missing !== other.key.missing) return one.key.missing ? 1 : -1;
        return falls ? compare(other.key, one.key) : compare(one.key, other.key);
      });
      table.tBodies[0].append(...rows.map((each) => each.row));
      table.classList.add("sorted");
    };
    headers.forEach((header, index) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...header.childNodes);
      button.addEventListener("click", () => sortBy(index));
      header.append(button);
    });
  }
})();
