//! The frame: the picture's size, components and color space (T.81 A.1, B.2.2).

/// T.81 allows 255 components, pictures have up to four.
pub const MAX_COMPONENTS: usize = 4;

/// What the components mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Color {
    /// One plane of luminance.
    Gray,
    /// Red, green, blue.
    Rgb,
    /// Luminance and two color differences.
    YCbCr,
    /// Four inks.
    Cmyk,
    /// CMY turned into YCbCr, and K.
    Ycck,
    /// So many bands of whatever kind.
    Bands(usize),
}

impl Color {
    /// Samples in a pixel of the picture: one, or red, green and blue.
    pub fn bands(self) -> usize {
        match self {
            Self::Gray => 1,
            Self::Bands(bands) => bands,
            _ => 3,
        }
    }

    /// Components of a frame.
    pub fn components(self) -> usize {
        if matches!(self, Self::Cmyk | Self::Ycck) { 4 } else { self.bands() }
    }
}

/// One component of a frame.
#[derive(Debug, Clone, Copy, Default)]
pub struct Component {
    /// The name that scans call it by.
    pub id: u8,
    /// Horizontal sampling factor: blocks in an MCU's row.
    pub h: usize,
    /// Vertical sampling factor.
    pub v: usize,
    /// The slot of its quantization table.
    pub quantizer_slot: usize,
    /// The table, in natural order, from its first scan on.
    pub quantizer: Option<[u16; 64]>,
    /// Samples in a row.
    pub width: usize,
    /// Rows of samples.
    pub height: usize,
    /// Blocks in a row that hold samples.
    pub blocks_across: usize,
    /// Rows of blocks that hold samples.
    pub blocks_down: usize,
    /// Blocks in a row, those included that only fill the last MCU.
    pub padded_across: usize,
}

/// What an SOF segment declares, and what follows from it.
#[derive(Debug, Clone)]
pub struct Frame {
    /// Pixels in a row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// Whether scans send parts of coefficients.
    pub progressive: bool,
    /// The largest horizontal sampling factor.
    pub max_h: usize,
    /// The largest vertical sampling factor.
    pub max_v: usize,
    /// MCUs of an interleaved scan in a row.
    pub mcus_across: usize,
    /// Rows of them.
    pub mcus_down: usize,
    /// What the components mean.
    pub color: Color,
    components: [Component; MAX_COMPONENTS],
    count: usize,
}

impl Frame {
    /// Lays out `count` components that have their sampling factors.
    pub fn new(
        width: usize,
        height: usize,
        progressive: bool,
        mut components: [Component; MAX_COMPONENTS],
        count: usize,
    ) -> Self {
        let used = &mut components[..count];
        let max_h = used.iter().map(|c| c.h).max().unwrap_or(1);
        let max_v = used.iter().map(|c| c.v).max().unwrap_or(1);
        let mcus_across = width.div_ceil(8 * max_h);
        for c in used {
            c.width = (width * c.h).div_ceil(max_h);
            c.height = (height * c.v).div_ceil(max_v);
            c.blocks_across = c.width.div_ceil(8);
            c.blocks_down = c.height.div_ceil(8);
            c.padded_across = mcus_across * c.h;
        }
        Frame {
            width,
            height,
            progressive,
            max_h,
            max_v,
            mcus_across,
            mcus_down: height.div_ceil(8 * max_v),
            color: Color::Gray,
            components,
            count,
        }
    }

    /// The components in their order.
    pub fn components(&self) -> &[Component] {
        &self.components[..self.count]
    }

    /// One of them, to be changed.
    pub fn component_mut(&mut self, i: usize) -> &mut Component {
        &mut self.components[..self.count][i]
    }

    /// Blocks that hold samples, in all components.
    pub fn blocks(&self) -> usize {
        self.components().iter().map(|c| c.blocks_across * c.blocks_down).sum()
    }

    /// Decides what the components mean, as libjpeg does: by a JFIF marker, by the transform that an Adobe marker names,
    /// by the components' names, in this order.
    pub fn set_color(&mut self, jfif: bool, adobe_transform: Option<u8>) {
        let ids = self.components().iter().map(|c| c.id);
        self.color = match (self.count, adobe_transform) {
            (1, _) => Color::Gray,
            (3, _) if jfif => Color::YCbCr,
            (3, Some(0)) => Color::Rgb,
            (3, None) if ids.eq(*b"RGB") => Color::Rgb,
            (3, _) => Color::YCbCr,
            (_, None | Some(0)) => Color::Cmyk,
            _ => Color::Ycck,
        };
    }
}
