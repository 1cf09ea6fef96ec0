/** A picture of an item: its own where the page may load it, else one drawn from its category and name. */
import { useState } from "preact/hooks";
import type { HitItem } from "./api";
import { service } from "./service";

type Pictured = Pick<HitItem, "item_id" | "title" | "category" | "image_url">;

/** The colour of a shelf, in degrees. */
export function hueOf(item: Pick<Pictured, "item_id"> & { category?: string[] | undefined }): number {
  return hash((item.category ?? []).join("/") || item.item_id) % 360;
}

function hash(text: string): number {
  let value = 2166136261;
  for (let at = 0; at < text.length; at++) value = Math.imul(value ^ text.charCodeAt(at), 16777619);
  return value >>> 0;
}

export function Picture({ item, size = 56 }: { item: Pictured; size?: number }) {
  const [broken, setBroken] = useState(false);
  if (item.image_url && allowed(item.image_url) && !broken) {
    return (
      <img class="picture" src={item.image_url} alt="" width={size} height={size} loading="lazy"
        onError={() => setBroken(true)} />
    );
  }
  return <Drawn item={item} size={size} />;
}

/** The policy of this page says where pictures may come from; asking elsewhere would only be an error. */
function allowed(url: string): boolean {
  try {
    return new URL(url, location.href).origin === location.origin || service.images;
  } catch {
    return false;
  }
}

/** The same shelf has the same colour and motif; the item turns and moves it. */
function Drawn({ item, size }: { item: Pictured; size: number }) {
  const shelf = hash((item.category ?? []).join("/") || item.item_id);
  const own = hash(item.title || item.item_id);
  const hue = hueOf(item);
  const motif = (shelf >>> 9) % 4;
  const turn = own % 360;
  const shift = 8 + ((own >>> 9) % 12);
  const style = { "--hue": String(hue) };
  return (
    <svg class="picture drawn" viewBox="0 0 56 56" width={size} height={size} aria-hidden="true" style={style}>
      <rect class="ground" width="56" height="56" rx="10" />
      <g transform={`rotate(${turn} 28 28)`}>
        {motif === 0 && (
          <>
            <circle class="far" cx={28 - shift / 2} cy="26" r="15" />
            <circle class="near" cx={28 + shift / 2} cy="31" r="9" />
          </>
        )}
        {motif === 1 && (
          <>
            <rect class="far" x="13" y={14 + shift / 3} width="30" height="18" rx="5" />
            <rect class="near" x={16 + shift / 2} y="27" width="12" height="16" rx="4" />
          </>
        )}
        {motif === 2 && (
          <>
            <path class="far" d="M28 10 L46 42 L10 42 Z" />
            <circle class="near" cx="28" cy={26 + shift / 3} r="7" />
          </>
        )}
        {motif === 3 && (
          <>
            <path class="far" d="M12 28 a16 16 0 0 1 32 0 z" />
            <path class="near" d={`M${14 + shift / 2} 30 a10 10 0 0 0 20 0 z`} />
          </>
        )}
      </g>
    </svg>
  );
}
