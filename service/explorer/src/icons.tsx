/** Icons, drawn: not every machine has the characters. */
const PATHS = {
  plus: "M10 4v12M4 10h12",
  minus: "M4 10h12",
  go: "M4 10h11M11 5.5l4.5 4.5-4.5 4.5",
  close: "M5 5l10 10M15 5L5 15",
  fold: "M5 8l5 5 5-5",
} as const;

export function Icon({ name }: { name: keyof typeof PATHS }) {
  return (
    <svg class="icon" viewBox="0 0 20 20" width="16" height="16" aria-hidden="true">
      <path d={PATHS[name]} />
    </svg>
  );
}
