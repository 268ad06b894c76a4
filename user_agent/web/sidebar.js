// The sidebar on a narrow screen: a drawer that opens over the page.

const sidebar = document.getElementById("sidebar");
const curtain = document.getElementById("curtain");
const menu = document.getElementById("menu");
const narrow = matchMedia("(max-width: 760px)");

export function startSidebar() {
  menu.addEventListener("click", () => open(!sidebar.classList.contains("open")));
  curtain.addEventListener("click", () => open(false));
  addEventListener("hashchange", () => open(false));
  sidebar.addEventListener("click", (event) => event.target.closest("a") && open(false));
  narrow.addEventListener("change", () => open(false));
  addEventListener("keydown", (event) => event.key === "Escape" && open(false));
  open(false);
}

function open(isOpen) {
  sidebar.classList.toggle("open", isOpen);
  sidebar.inert = narrow.matches && !isOpen;
  curtain.hidden = !isOpen;
  menu.setAttribute("aria-expanded", String(isOpen));
}
