/** What the service says of itself in the page: whether it wants keys, loads pictures, and what its presets weigh. */
export interface Service {
  keys: boolean;
  images: boolean;
  /** By preset; "" are the service's own. A dimension that is not named weighs nothing. */
  weights: Record<string, Record<string, number>>;
}

function said(): Partial<Service> {
  return typeof document === "undefined" ? {} : JSON.parse(document.documentElement.dataset["service"] ?? "{}");
}

export const service: Service = { keys: false, images: false, weights: {}, ...said() };
