// Whoever has no mouse can scroll what is wider than the column: such boxes take part in the order of the Tab key.
// The theme does so for code and tables when the window changes, so here is word of the folds that open, too.
const equations = document.querySelectorAll("div.math, div.amsmath");

const reachable = () => {
  for (const box of equations) {
    const scrolls = box.scrollWidth > box.clientWidth;
    const wanted = { tabindex: "0", role: "group", "aria-label": "Equation" };
    for (const [name, value] of Object.entries(wanted)) {
      if (scrolls) box.setAttribute(name, value);
      else box.removeAttribute(name);
    }
  }
};

addEventListener("resize", reachable);
document.addEventListener("toggle", () => dispatchEvent(new Event("resize")), true);
// and once everything stands in its place: the theme measures code and tables before that
addEventListener("load", () => document.fonts.ready.then(() => dispatchEvent(new Event("resize"))));
